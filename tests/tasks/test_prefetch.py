"""Reading ahead: in order, bounded, in another thread, errors in their place, and an end in any case."""

import threading
import time
from collections.abc import Iterator

import pytest

from dnasm.tasks.prefetch import prefetch


def test_items_come_in_order_and_the_reader_is_only_so_far_ahead() -> None:
    given: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            given.append(i)
            yield i

    with prefetch(items(), depth=3) as received:
        first = next(received)
        time.sleep(0.2)
        assert 1 < len(given) <= 1 + 3 + 1  # taken, waiting, and in the reader's hand
        assert [first, *received] == list(range(50))


def test_the_reader_works_while_the_other_does() -> None:
    names: set[str] = set()

    def items() -> Iterator[int]:
        for i in range(3):
            names.add(threading.current_thread().name)
            yield i

    with prefetch(items()) as received:
        assert list(received) == [0, 1, 2]
    assert names == {"dnasm reader"}


def test_an_error_comes_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("line 2")

    with prefetch(items()) as received:
        assert next(received) == 1
        with pytest.raises(ValueError, match="line 2"):
            next(received)


def test_the_thread_ends_with_the_block() -> None:
    before = threading.active_count()
    with prefetch(iter(range(10**9))) as received:
        next(received)
    assert threading.active_count() == before
