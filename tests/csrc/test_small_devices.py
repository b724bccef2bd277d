"""Kernels for devices on which a block has 99 KB of shared memory, held to it by the emulator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.csrc.exact import exact, noise_case, row_errors, run
from tests.csrc.kernels import KernelError, Kernels
from tests.csrc.test_one_block import BF16, PLANS, assert_white, gradient_like
from tests.csrc.toolchain import host_library

pytestmark = pytest.mark.slow
SMALL, LARGE = 99 << 10, 227 << 10


@pytest.fixture(scope="module")
def kernels(objects: Path) -> Iterator[Kernels]:
    instances = [*((length, "bfloat16") for length in PLANS), (32768, "float32", 1), (65536, "float32", 1)]
    kernels = Kernels(host_library(objects, instances, ["-DDNASM_SHARED_KB=99"]))
    kernels.seed(1, SMALL)
    yield kernels
    kernels.seed(1, LARGE)


@pytest.mark.parametrize("length", PLANS)
@pytest.mark.parametrize("full", [True, False])
def test_every_plan_fits(kernels: Kernels, length: int, full: bool) -> None:
    n = length if full else length - length // 5 - 1
    case = noise_case(3 if length <= 8192 else 2, 2, n, n, BF16)
    dy = gradient_like(case)
    y, gradients = run(kernels, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    assert_white(y, wanted)
    assert_white(gradients.du, wanted_gradients["u"])
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1.5e-3


def test_the_float32_route_fits(kernels: Kernels) -> None:
    case = noise_case(1, 1, 30_000, 30_000, torch.float32)
    y, gradients = run(kernels, case, case.u, precision=1)
    wanted, wanted_gradients = exact(case, case.u)
    assert gradients is not None
    assert row_errors(y, wanted).max() <= 1e-5
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1e-5


def test_packed_sequences_past_one_block_are_refused(kernels: Kernels) -> None:
    with pytest.raises(KernelError, match="packed sequences"):
        run(kernels, noise_case(1, 1, 40_000, 8, BF16), bounds=[0, 20_000, 40_000])


def test_kernels_for_large_devices_do_not_fit(kernels: Kernels, bf16: Kernels) -> None:
    with pytest.raises(KernelError, match="too much shared memory"):
        run(bf16, noise_case(1, 1, 32768, 8, BF16))
