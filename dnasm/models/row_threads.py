"""Work on rows, each by one thread: what a row gives depends on no other row and on no number of threads.

Torch's own threads share each product of a row, and meet after each: thousands of times a second where rows are short,
and on a machine that has other work the fastest waits for the last every time. Here they meet once for many rows.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_row(work: Callable[[Item], Result], rows: Sequence[Item]) -> list[Result]:
    """Do `work` on each row without gradients, as many at once as torch has threads; results stand in their order."""

    def without_gradients(row: Item) -> Result:
        with torch.inference_mode():  # a thread's own, as every such switch
            return work(row)

    count = min(torch.get_num_threads(), len(rows))
    if count < 2:
        return [without_gradients(row) for row in rows]
    return list(_pool(torch.get_num_threads()).map(without_gradients, rows))


@lru_cache(maxsize=1)
def _pool(count: int) -> ThreadPoolExecutor:
    """Start threads in each of which torch computes alone."""
    ready = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # the first question gives a thread torch's own number, which then is its own
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "dnasm rows", start)
    for _ in range(count):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(count)  # for this thread, and for those that are yet to start
    return pool
