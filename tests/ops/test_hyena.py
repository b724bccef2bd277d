"""The fused operator of a Hyena block against its definition in float64."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from dnasm.ops import cpu, hyena_operator, record_calls, reference, spectrum

Case = dict[str, Any]


def _case(b: int, d: int, length: int, taps: int, *, both: bool = False, dtype: torch.dtype = torch.float32) -> Case:
    generator = torch.Generator().manual_seed(length)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "projection": noise(b, length, 3 * d).to(dtype).transpose(1, 2),
        "k": noise(d, 2, length) if both else noise(d, length),
        "short_weight": noise(3 * d, taps),
        "short_bias": noise(3 * d),
        "skip": noise(d),
        "bidirectional": both,
    }


def _leaves(case: Case, dtype: torch.dtype | None = None) -> Case:
    return {
        name: value.detach().to(dtype or value.dtype).requires_grad_() if isinstance(value, Tensor) else value
        for name, value in case.items()
    }


def _gradients(y: Tensor, leaves: Case, dy: Tensor) -> dict[str, Tensor]:
    names = [name for name, value in leaves.items() if isinstance(value, Tensor)]
    found = torch.autograd.grad(y, [leaves[name] for name in names], dy.to(y.dtype))
    return {"y": y.detach()} | dict(zip(names, found, strict=True))


def _check(case: Case, allowed: float) -> None:
    wide, leaves = _leaves(case, torch.float64), _leaves(case)
    right = reference.hyena_operator(**wide)
    dy = torch.randn(right.shape, generator=torch.Generator().manual_seed(1)).to(case["projection"].dtype)
    expected = _gradients(right, wide, dy)
    for name, found in _gradients(hyena_operator(**leaves), leaves, dy).items():
        error = ((found.double() - expected[name]).norm() / expected[name].norm()).item()
        assert error <= allowed, f"{name}: {error:.2e}"


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("length", "taps"), [(1, 3), (2, 4), (100, 3), (511, 7), (513, 1), (1100, 5)])
def test_parity(length: int, taps: int, both: bool) -> None:
    _check(_case(2, 17, length, taps, both=both), 3e-6)


@pytest.mark.parametrize("body", ["native", "torch"])
def test_parity_in_bfloat16(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(2, 5, 700, 3, dtype=torch.bfloat16)
    if body == "torch":
        monkeypatch.setattr(cpu, "unavailable", lambda: "no compiler in this test")
    with record_calls() as calls:
        hyena_operator(**case)
    assert [(c.body, c.direction) for c in calls] == [(body, "short"), (body, "forward")]
    _check(case, 5e-3)


def test_rows_of_a_projection_along_time_and_no_bias_and_no_skip() -> None:
    case = _case(2, 5, 300, 3)
    case["projection"] = case["projection"].contiguous()
    case["short_bias"] = case["skip"] = None
    _check(case, 3e-6)


def test_faults_would_be_seen() -> None:
    case = _case(1, 4, 200, 3)
    right = hyena_operator(**case)
    x0, x1, v = case["projection"].chunk(3, 1)
    for wrong in (
        case | {"projection": torch.cat([x1, x0, v], 1)},
        case | {"projection": torch.cat([x0, x1, torch.ones_like(v)], 1)},
        case | {"skip": None},
        case | {"short_bias": None},
        case | {"short_weight": case["short_weight"].roll(1, 1)},
    ):
        assert (hyena_operator(**wrong) - right).norm() > 0.01 * right.norm()


def test_backward_keeps_the_inputs_alone() -> None:
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    leaves = _leaves(_case(1, 4, 200, 3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        hyena_operator(**leaves)
    assert set(kept) <= {value.data_ptr() for value in leaves.values() if isinstance(value, Tensor)}


def test_derivatives_and_the_operators_contract() -> None:
    case = _leaves(_case(1, 2, 6, 3), torch.float64)
    names = [name for name, value in case.items() if isinstance(value, Tensor)]

    def run(*tensors: Tensor) -> Tensor:
        return hyena_operator(**(case | dict(zip(names, tensors, strict=True))))

    inputs = tuple(case[name] for name in names)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    small = _leaves(_case(2, 3, 20, 3))
    short = (small["projection"], small["short_weight"], small["short_bias"])
    options = (None, 0, False, None, "auto")
    torch.library.opcheck(torch.ops.dnasm.hyena_operator.default, (*short, small["k"], small["skip"], *options))
    plain = tuple(t.detach() for t in short)
    torch.library.opcheck(torch.ops.dnasm.gated_short_conv.default, (*plain, 1))
    dy = torch.randn(2, 2, 3, 20)
    torch.library.opcheck(torch.ops.dnasm.gated_short_conv_backward.default, (dy[0], dy[1], *plain, 1))


def test_spectra_autocast_and_determinism() -> None:
    case = _case(3, 4, 128, 3)
    y = hyena_operator(**case)
    assert torch.equal(hyena_operator(**case | {"k": spectrum(case["k"], 128)}), y)
    with torch.autocast("cpu", torch.bfloat16):
        assert hyena_operator(**case).dtype == torch.bfloat16
    first, again = (_gradients(hyena_operator(**leaves), leaves, y) for leaves in (_leaves(case), _leaves(case)))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_bad_arguments_are_named() -> None:
    case = _case(1, 2, 9, 3)
    plain = inspect.unwrap(hyena_operator)  # the type checker of the tests would object first
    for change, error, words in (
        ({"projection": case["projection"][:, :5]}, ValueError, "x0, x1 and v in turn"),
        ({"short_weight": torch.zeros(5, 3)}, ValueError, "weight"),
        ({"short_bias": torch.zeros(2)}, ValueError, "bias has shape"),
        ({"k": torch.zeros(3, 9)}, ValueError, "k has shape"),
        ({"skip": torch.zeros(3)}, ValueError, "skip has shape"),
        ({"precision": "half"}, ValueError, "no precision"),
        ({"backend": "gpu"}, ValueError, "no backend"),
        ({"short_weight": torch.zeros(6, 3, dtype=torch.long)}, TypeError, r"weight\.float"),
    ):
        with pytest.raises(error, match=words):
            plain(**case | change)
