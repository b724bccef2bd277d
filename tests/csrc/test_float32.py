"""The float32 route against float64: 1e-5 on every kind of row, also past one block."""

from pathlib import Path

import pytest
import torch

from tests.csrc.exact import Case, exact, largest_response, noise_case, row_errors, run
from tests.csrc.kernels import Kernels
from tests.csrc.test_one_block import hard_inputs
from tests.csrc.toolchain import host_library

FLOAT32 = 1


@pytest.fixture(scope="module")
def kernels(objects: Path) -> Kernels:
    instances = [(n, "float32", FLOAT32) for n in (256, 512, 4096, 16384, 32768, 65536)] + [(512, "bfloat16", FLOAT32)]
    return Kernels(host_library(objects, instances, ["-DDNASM_RING_BYTES=(1<<20)"]))


@pytest.mark.parametrize(
    ("length", "taps", "bidirectional"),
    [
        (256, 256, False),
        (301, 400, True),
        (1, 1, False),
        (4095, 100, False),
        (4096, 4096, True),
        (16384, 16384, False),
        (20001, 32768, True),  # past one block,
        (40001, 60000, True),  # each batch in two groups
        (131_072, 131_072, False),
        (1_048_579, 300_000, False),
    ],
)
def test_every_result_to_1e_5(kernels: Kernels, length: int, taps: int, bidirectional: bool) -> None:
    case = noise_case(
        3 if length < 9000 or length == 40001 else 1,
        2 if length < 1 << 20 else 1,
        length,
        taps,
        torch.float32,
        bidirectional=bidirectional,
    )
    dy = torch.randn(case.u.shape, generator=torch.Generator().manual_seed(9))
    y, gradients = run(kernels, case, dy, FLOAT32)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    assert gradients.din_gate is not None
    assert gradients.dout_gate is not None
    for found, name in [
        (gradients.du, "u"),
        (gradients.din_gate, "in_gate"),
        (gradients.dout_gate, "out_gate"),
        (gradients.dk, "k"),
    ]:
        assert row_errors(found, wanted_gradients[name]).max() <= 1e-5, name
    assert row_errors(y, wanted).max() <= 1e-5
    torch.testing.assert_close(gradients.dskip.double(), wanted_gradients["skip"], rtol=1e-4, atol=1e-2)


def test_packed_sequences(kernels: Kernels) -> None:
    bounds = [0, 3, 3, 300, 556, 600]
    case = noise_case(2, 2, 600, 400, torch.float32)
    y, gradients = run(kernels, case, case.u, FLOAT32, bounds)
    wanted, wanted_gradients = exact(case, case.u, bounds)
    assert gradients is not None
    assert row_errors(y, wanted).max() <= 1e-5
    assert row_errors(gradients.du, wanted_gradients["u"]).max() <= 1e-5
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1e-5


@pytest.mark.parametrize("name", list(hard_inputs(8)))
def test_hard_rows(kernels: Kernels, name: str) -> None:
    x, k = hard_inputs(4096)[name]
    case = Case(x.contiguous(), k.contiguous())
    y, _ = run(kernels, case, precision=FLOAT32)
    wanted, _ = exact(case)
    error = (y.double() - wanted).norm(dim=-1)
    # As with every transform, what is small beside the row's largest response is lost, here at 1e-7 of that.
    law = 1e-7 * largest_response(k, 4096) * x.double().norm(dim=-1)
    assert (error <= torch.maximum(1e-5 * wanted.norm(dim=-1), law)).all()


def test_bfloat16_rows_round_once(kernels: Kernels) -> None:
    case = noise_case(2, 2, 500, 500, torch.bfloat16)
    y, _ = run(kernels, case, precision=FLOAT32)
    wanted, _ = exact(case)
    assert (row_errors(y, wanted) <= row_errors(wanted.bfloat16(), wanted) * 1.001).all()
