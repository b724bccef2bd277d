"""Rows that are shared among threads: each has one, in which torch computes alone."""

import threading

import pytest
import torch
from torch import Tensor

from dnasm.models.row_threads import each_row


def test_rows_stand_in_their_order_and_each_thread_computes_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen: dict[str, int] = {}
        gate = threading.Barrier(3, timeout=20)

        def work(row: Tensor) -> Tensor:
            gate.wait()  # three rows at once, or it times out
            seen[threading.current_thread().name] = torch.get_num_threads()
            return row @ row.T

        rows = torch.randn(6, 64, 64, generator=torch.Generator().manual_seed(0)).split(1)
        found = each_row(lambda row: work(row[0]), rows)
        assert set(seen.values()) == {1}
        assert len(seen) == 3
        assert all(result.is_inference() for result in found)
        assert torch.get_num_threads() == 3  # here, and for threads that start later
        late: list[int] = []
        thread = threading.Thread(target=lambda: late.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert late == [3]
        torch.set_num_threads(1)
        assert all(torch.equal(a, b[0] @ b[0].T) for a, b in zip(found, rows, strict=True))
        assert set(each_row(lambda _: threading.get_ident(), rows)) == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_row_is_raised() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            each_row(lambda row: 1 // row, [1, 0, 1])
    finally:
        torch.set_num_threads(before)
