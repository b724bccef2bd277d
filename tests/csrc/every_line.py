"""A few small cases that together run every line of the kernels: `python -m tests.csrc.every_line FOLDER`.

A program of its own, so that gcov's counts, which are written when a process ends, hold these cases and no others.
FOLDER keeps the objects. Results are judged, loosely: a case that computes nonsense does not count as run.
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from tests.csrc.exact import Case, exact, noise_case, row_errors, run
from tests.csrc.kernels import Kernels
from tests.csrc.short_kernels import DirectKernels, ShortKernels, short_library
from tests.csrc.test_direct import check as check_direct
from tests.csrc.test_short import check as check_short
from tests.csrc.test_short import projection
from tests.csrc.toolchain import ROOT, compile_program, host_library

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
COUNTED = ("--coverage",)


def judge(kernels: Kernels, case: Case, precision: int = 0, bounds: list[int] | None = None) -> None:
    y, gradients = run(kernels, case, case.u, precision, bounds)
    wanted, wanted_gradients = exact(case, case.u, bounds)
    assert gradients is not None
    for found, right in ((y, wanted), (gradients.du, wanted_gradients["u"]), (gradients.dk, wanted_gradients["k"])):
        assert row_errors(found.flatten(), right.flatten()) < 4e-3


def one_block(folder: Path) -> None:
    instances: list[tuple[object, ...]] = [(n, "bfloat16") for n in (256, 512, 4096, 8192, 32768)]
    instances += [(256, "float16"), (256, "float32"), (256, "float32", 1), (512, "bfloat16", 1)]
    kernels = Kernels(host_library(folder, instances, ["-O0"], COUNTED))
    for n in (256, 512, 4096, 8192, 32768):
        judge(kernels, noise_case(1 if n > 512 else 16, 1, n, n, BF16, bidirectional=n == 512))
    for dtype in (BF16, F16, F32):
        case = noise_case(3, 3, 201, 300, dtype)
        case.k /= 16
        judge(kernels, case)
    judge(kernels, noise_case(1, 3, 600, 100, BF16), bounds=[0, 1, 256, 600])
    for k_dtype in (torch.float64, F16, BF16):
        judge(kernels, noise_case(2, 1, 200, 30, BF16, gates="", skip=False, k_dtype=k_dtype))
    judge(kernels, noise_case(2, 2, 250, 300, F32, bidirectional=True), 1)
    judge(kernels, noise_case(1, 1, 500, 500, BF16), 1, bounds=[0, 300, 500])


def past_one_block(folder: Path) -> None:
    instances = [(65536, "bfloat16"), (65536, "float32", 1)]
    kernels = Kernels(host_library(folder, instances, ["-O1", "-fno-inline", "-DDNASM_RING_BYTES=(1<<18)"], COUNTED))
    judge(kernels, noise_case(1, 1, 65536, 65536, BF16))
    judge(kernels, noise_case(1, 1, 65536, 65536, BF16, gates=""))
    judge(kernels, noise_case(1, 1, 65537, 70_000, BF16, bidirectional=True))
    judge(kernels, noise_case(1, 1, 65537, 70_000, F32, bidirectional=True), 1)
    two_levels = noise_case(1, 1, (1 << 20) + 1, 1000, BF16, gates="", skip=False)
    assert row_errors(run(kernels, two_levels)[0], exact(two_levels)[0]).max() < 4e-3


def few_taps(folder: Path) -> None:
    library = short_library(folder, ("float32", "float16", "bfloat16"), ("-O0",), COUNTED)
    short, direct = ShortKernels(library), DirectKernels(library)
    for channels_last in (False, True):
        for streams, dtype in ((1, F32), (3, BF16)):
            check_short(short, projection(2, 3 * streams, 130, dtype, channels_last), 3, streams, 1)
    wide = torch.randn(2, 96, 260, generator=torch.Generator().manual_seed(1)).to(BF16)
    check_short(short, wide, 3, 3, 0)
    check_short(short, torch.randn(1, 260, 96).to(F16).transpose(1, 2), 6, 3, 1)
    for dtype, length in ((BF16, 512), (F16, 301)):
        case = noise_case(3, 1, length, 40, dtype, bidirectional=length == 301)
        case.k /= 8
        check_direct(direct, case)
    case = noise_case(1, 1, 256, 8, BF16, gates="i", skip=False)
    far = Case(case.u * 2.0**-100, case.k * 2.0**-20, case.in_gate)
    judge_far(direct, far)


def judge_far(kernels: DirectKernels, case: Case) -> None:
    """A scale beyond one factor of a float; then an infinity in the row."""
    y, _ = run(kernels, case)
    assert row_errors(y, exact(case)[0]).max() < 4e-3
    case.u[0, 0, 100] = float("inf")
    spoiled: Tensor = run(kernels, case)[0]
    assert torch.equal(spoiled[..., :96], y[..., :96])


def main() -> None:
    folder = Path(sys.argv[1])
    one_block(folder)
    past_one_block(folder)
    few_taps(folder)
    subprocess.run([compile_program(folder, ["-O0"], ROOT / "tests/csrc/long_driver.cpp", COUNTED)], check=True)


if __name__ == "__main__":
    main()
