"""Read what comes next in threads, while the model works on what is there."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def map_ahead(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Iterator[Result]]:
    """Apply `work` to items in threads, which are `workers` items ahead at most and end with the block.

    Args:
        work: Called for one item; what it raises is raised where its result would have come.
        items: Asked for by whoever takes the results, in their order.
        workers: Threads; 0: the work is done when its result is asked for.

    Yields:
        The results, in the order of the items.
    """
    if workers == 0:
        yield map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    stream = iter(items)

    with ThreadPoolExecutor(workers, "dnasm reader") as pool:

        def results() -> Iterator[Result]:
            while True:
                waiting.extend(pool.submit(work, item) for item in islice(stream, workers + 1 - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()

        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()
