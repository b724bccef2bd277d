"""Read ahead in a thread, a few items at most, so that whoever computes does not wait for the reader."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_POLL = 0.1  # seconds between two looks at whether anyone still wants more


@contextmanager
def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Iterator[Item]]:
    """Go through `items` in a thread of its own, which is `depth` items ahead at most and ends with the block.

    What the reader raises is raised where its item would have come.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[Item] | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:
            put(error)

    def received() -> Iterator[Item]:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    thread = threading.Thread(target=read, name="dnasm reader", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        closed.set()
        thread.join()
