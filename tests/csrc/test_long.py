"""Plans past one block, run on the CPU by the emulator, against float64; faults planted where passes meet."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.csrc.exact import Case, assert_order_changes_no_bit, exact, largest_response, noise_case, row_errors, run
from tests.csrc.kernels import Kernels
from tests.csrc.test_faults import THREAD
from tests.csrc.test_one_block import BF16, assert_white, gradient_like, hard_inputs
from tests.csrc.toolchain import ROOT, compile_program, host_library, plant

SMALL_RING = ["-DDNASM_RING_BYTES=(1<<18)"]  # two sequences of 65,536 in a group, so that groups follow one another

FIRST_RACE = {"TSAN_OPTIONS": "halt_on_error=1"}


@pytest.fixture(scope="module")
def kernels(objects: Path) -> Kernels:
    return Kernels(host_library(objects, [(65536, "bfloat16")], SMALL_RING))


def assert_right(kernels: Kernels, case: Case) -> None:
    """Every result of forward and backward meets the bounds of white noise."""
    dy = gradient_like(case)
    y, gradients = run(kernels, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    assert_white(y, wanted)
    assert_white(gradients.du, wanted_gradients["u"])
    for name, found in (("in_gate", gradients.din_gate), ("out_gate", gradients.dout_gate)):
        assert (found is None) == (name not in wanted_gradients)
        if found is not None:
            assert_white(found, wanted_gradients[name])
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1.5e-3
    if "skip" in wanted_gradients:
        torch.testing.assert_close(gradients.dskip.double(), wanted_gradients["skip"], rtol=5e-3, atol=0.5)


@pytest.mark.parametrize(
    ("batch", "channels", "length", "taps", "gates", "bidirectional"),
    [
        (3, 2, 65536, 65536, "io", False),  # one outer stage; a channel's batch is cut between groups
        (1, 3, 65537, 200_000, "", True),  # two outer stages, ragged rows at odd addresses, more taps than samples
        (1, 1, 262144, 1000, "i", False),
        (1, 1, 500_002, 400_000, "o", True),
        (1, 1, (1 << 20) + 3, 1 << 20, "io", False),  # two outer levels
    ],
)
def test_every_result_meets_the_bounds(
    kernels: Kernels, batch: int, channels: int, length: int, taps: int, gates: str, bidirectional: bool
) -> None:
    kernels.seed(length)
    case = noise_case(batch, channels, length, taps, BF16, gates=gates, skip=gates != "o", bidirectional=bidirectional)
    assert_right(kernels, case)


@pytest.mark.parametrize("name", list(hard_inputs(8)))
def test_the_law_holds_on_every_row(kernels: Kernels, name: str) -> None:
    length = 65536
    x, k = (rows[:1, -1:] if rows.dim() == 3 else rows[-1:] for rows in hard_inputs(length)[name])
    case = Case(x.to(BF16).contiguous(), k.contiguous())
    y, _ = run(kernels, case)
    wanted, _ = exact(case)
    law = 7e-4 * largest_response(k, length) * case.u.double().norm(dim=-1)
    allowed = (wanted.to(BF16).double() - wanted).norm(dim=-1) + law
    error = (y.double() - wanted).norm(dim=-1)
    assert (error <= allowed).all(), f"{(error / allowed).max():.2f} of what is allowed"


def test_the_loudest_row_of_a_long_plan_overflows_nothing(kernels: Kernels) -> None:
    case = Case(torch.full((1, 1, 1 << 20), 1.99).to(BF16), torch.ones(1, 1 << 20))
    assert row_errors(run(kernels, case)[0], exact(case)[0]).max() < 2e-3


def test_zeros_and_bad_rows_stay_where_they_are(kernels: Kernels) -> None:
    case = noise_case(3, 1, 65536, 65536, BF16, gates="")
    case.u[0] = 0
    clean, _ = run(kernels, case)
    case.u[1, 0, 17] = float("inf")
    y, _ = run(kernels, case)
    assert (y[0] == 0).all()
    assert y[1].isnan().all()
    assert torch.equal(y[2], clean[2])


def test_neither_groups_nor_the_thread_order_change_a_bit(kernels: Kernels) -> None:
    case = noise_case(3, 1, 65536, 65536, BF16)
    assert_order_changes_no_bit(kernels, case, gradient_like(case), alone=2)


def races(objects: Path, root: Path = ROOT) -> str:
    """What the race checker says of every kernel on a block each; `root` holds csrc and tests/csrc."""
    program = compile_program(objects, ["-O1"], root / "tests/csrc/long_driver.cpp", THREAD)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False, env=FIRST_RACE)
    return done.stderr if done.returncode else ""


def test_no_race(objects: Path) -> None:
    assert races(objects) == ""


@dataclass(frozen=True)
class Fault:
    file: str
    original: str
    planted: str


WRONG = {
    "the inner pass is skipped": Fault(
        "long.cuh", "launch(two ? inner_forward_kernel<P, 2> : inner_forward_kernel<P, 1>, inside, p, inner)", "nullptr"
    ),
    "a row's frequency is wrong": Fault("outer.cuh", "(row >> second_shift) + 16 * (row & (second - 1))", "row"),
    "a row takes another's tables": Fault("inner.cuh", "w.tables + row * ", "w.tables + 0 * "),
    "the way back takes the way there's twiddle": Fault(
        "inner.cuh", "own_table(RowTables::kInnerBack)", "own_table(RowTables::kInner)"
    ),
    "a lost conjugate": Fault("inner.cuh", "multiply<true>(x[1], re, im)", "multiply<false>(x[1], re, im)"),
    "columns keep scales of their own": Fault("inner.cuh", "static_cast<int>(e) - static_cast<int>(most))", "0)"),
    "a group forgets the one before": Fault("long.cuh", "partial, b == 0}", "partial, true}"),
    "another channel's filter": Fault(
        "inner.cuh", "(static_cast<uint32_t>(work.sequence) + sequence) / static_cast<uint32_t>(p.batch)", "0"
    ),
}
RACES = {
    "the second stage does not wait": Fault(
        "outer.cuh", "    sync_block();\n    DNASM_UNROLL_ONCE\n", "    DNASM_UNROLL_ONCE\n"
    ),
    "the way back does not wait": Fault("outer.cuh", "    sync_block();\n    DNASM_UNROLL\n", "    DNASM_UNROLL\n"),
    "the second transform does not wait": Fault("inner.cuh", "    sync_block();  // all rows have been read\n", ""),
    "a row's tables are not waited for": Fault("inner.cuh", "  sync_block();  // the tables are there\n", ""),
    "the second result does not wait": Fault("result.cuh", "    sync_block();\n", ""),
    "the inner stages do not wait": Fault(
        "inner.cuh",
        "    sync_block();\n    DNASM_UNROLL\n    for (int r = kBack",
        "    DNASM_UNROLL\n    for (int r = kBack",
    ),
}


def scaled_case(batch: int, channels: int, length: int) -> Case:
    case = noise_case(batch, channels, length, length, BF16)
    case.u[..., ::2048] *= 8  # columns of unlike scales
    return case


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_result_is_found(objects: Path, tmp_path: Path, name: str) -> None:
    fault = WRONG[name]
    plant(tmp_path, f"fftconv/{fault.file}", fault.original, fault.planted)
    broken = Kernels(host_library(objects, [(65536, "bfloat16")], ["-O0", "-Wno-error", *SMALL_RING], root=tmp_path))
    two_stages = "frequency" in name
    case = scaled_case(3 if "group" in name else 1, 2 if "channel" in name else 1, 131072 if two_stages else 65536)
    with pytest.raises(AssertionError):
        assert_right(broken, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RACES))
def test_a_missing_barrier_is_found(objects: Path, tmp_path: Path, name: str) -> None:
    fault = RACES[name]
    plant(tmp_path, f"fftconv/{fault.file}", fault.original, fault.planted)
    assert "data race" in races(objects, tmp_path)


def test_the_same_cases_without_a_fault(kernels: Kernels) -> None:
    assert_right(kernels, scaled_case(1, 1, 65536))
    assert_right(kernels, scaled_case(1, 1, 131072))
