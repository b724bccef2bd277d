"""`dnasm bench fftconv` on a CPU, at sizes that take no time."""

from pathlib import Path

import pytest
import torch

from dnasm.config import BenchConfig
from dnasm.ops import record_calls
from dnasm.tasks import bench_fftconv
from dnasm.tasks.bench_contenders import Contender, Problem, _flash_takes, contenders


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_fftconv, "CPU_LENGTHS", (100, 128))
    monkeypatch.setattr(bench_fftconv, "CPU_ELEMENTS", 1 << 12)
    monkeypatch.setattr(bench_fftconv, "_peak", lambda problem, contender: 1)


def test_every_size_direction_and_contender_has_a_row(small: None, tmp_path: Path) -> None:
    rows = list(bench_fftconv.rows(BenchConfig(what="fftconv", repeats=2, device="cpu", out=str(tmp_path / "b.jsonl"))))
    seen = {(r["length"], r["gated"], r["backward"], r["filter"], r["contender"]) for r in rows}
    assert len(seen) == len(rows) == 2 * 2 * (3 + 3 + 3)  # forward with both filters, backward with one
    assert {r["contender"] for r in rows} == {"dnasm", "torch rfft", "torch fft"}
    assert all(r["ratio"] == 1 for r in rows if r["contender"] == "dnasm")
    assert all(r["error"] < 1e-5 for r in rows if r["error"] is not None)
    assert all(r["floor_seconds"] > 0 and r["ratio_lowest"] <= r["ratio"] <= r["ratio_highest"] for r in rows)
    assert (tmp_path / "b.png").stat().st_size > 10_000


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_everyone_computes_the_same(gated: bool, backward: bool) -> None:
    problem = Problem(300, 2, 3, gated, backward, "cpu", torch.float32)
    tensors = problem.inputs(0)
    results = []
    for contender in contenders("cpu"):
        with record_calls() as calls:
            results.append(problem.run(contender, tensors))
        assert bool(calls) == (contender.name == "dnasm")
        if not backward:
            assert contender.prepare is not None
            ahead = problem.run(contender, tensors, contender.prepare(tensors["k"], 300))
            torch.testing.assert_close(ahead, results[-1])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-4, rtol=1e-4)


def test_the_peak_of_a_fresh_process_counts_what_a_call_allocates() -> None:
    problem = Problem(1 << 21, 1, 4, False, False, "cpu", torch.float32)
    ours, rfft, _ = contenders("cpu")
    small, large = (bench_fftconv._peak(problem, contender) for contender in (ours, rfft))
    assert small is not None
    assert large is not None
    assert 4 * (1 << 23) <= small < large / 2


def test_rows_can_be_chosen(small: None) -> None:
    chosen = BenchConfig(what="fftconv", repeats=1, device="cpu", lengths=[128], gated=True)
    rows = list(bench_fftconv.rows(chosen))
    assert {(r["length"], r["gated"]) for r in rows} == {(128, True)}
    assert not list(bench_fftconv.rows(BenchConfig(what="fftconv", device="cpu", batches=[99])))


def test_who_fails_drops_out_and_the_others_are_timed(small: None, capfd: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("misaligned address")

    problem = Problem(128, 1, 2, False, False, "cpu", torch.float32)
    everyone = [contenders("cpu")[0], Contender("broken", fails)]
    rows = list(bench_fftconv._compare(problem, everyone, 1, 1e9))
    assert {r["contender"] for r in rows} == {"dnasm"}
    assert "broken drops out: misaligned address" in capfd.readouterr().err


def test_flash_is_asked_for_powers_of_two_alone() -> None:
    assert [n for n in (256, 1000, 1 << 19, 1 << 20) if _flash_takes(n)] == [256, 1 << 19]
