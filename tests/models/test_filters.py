"""Filters against plain NumPy in float64."""

import numpy as np
import pytest
import torch

from dnasm.models.filters import DiagonalKernel, HyenaFilter, ShiftKernel, Sin


def test_the_hyena_filter_is_the_official_formula() -> None:
    torch.manual_seed(0)
    made = HyenaFilter(6, 50, embedding=5, width=8, inner_layers=2, frequency=3.0, shift=0.05)
    with torch.no_grad():
        made.implicit_filter[1].freq += torch.rand(1, 8)
    weights = {name: value.double().numpy() for name, value in made.state_dict().items()}
    length = 50
    t = np.arange(length) / (length - 1)
    phase = np.array([1e-4, 1.0])[None] * (2 * np.pi * np.arange(length) / length)[:, None]
    h = np.concatenate([t[:, None], np.cos(phase), -np.sin(phase)], 1)
    for i in (0, 2, 4):
        h = h @ weights[f"implicit_filter.{i}.weight"].T + weights[f"implicit_filter.{i}.bias"]
        h = np.sin(weights["implicit_filter.1.freq"] * h)
    h = h @ weights["implicit_filter.6.weight"].T
    rates = np.linspace(np.log(1e-2) / 1.5, np.log(1e-2) / 0.3, 6)
    expected = (h * (np.exp(-t[:, None] * np.abs(rates)) + 0.05)).T
    np.testing.assert_allclose(made(50).detach().numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(made(20).detach().numpy(), expected[:, :20], atol=2e-6)


def test_one_sine_is_shared_by_all_layers() -> None:
    made = HyenaFilter(4, 10, inner_layers=3)
    sines = [module for module in made.implicit_filter if isinstance(module, Sin)]
    assert len(sines) == 4
    assert len({id(module.freq) for module in sines}) == 1
    assert sum("freq" in name for name, _ in made.named_parameters()) == 1


@pytest.mark.parametrize("states", [4, 64])
@pytest.mark.parametrize("length", [1, 3, 100])
def test_the_shift_kernel_is_a_correlation(states: int, length: int) -> None:
    torch.manual_seed(0)
    made = ShiftKernel(3, states)
    with torch.no_grad():
        made.B.normal_()
    b, c = made.B.detach().numpy(), made.C.detach().numpy()[0]
    taps = min(states, length)
    expected = np.array(
        [[sum(b[h, n] * c[h, n + j] for n in range(states - j)) for j in range(taps)] for h in range(3)]
    )
    np.testing.assert_allclose(made(length).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("discretization", ["bilinear", "zoh"])
def test_the_diagonal_kernel_is_its_recurrence(discretization: str) -> None:
    torch.manual_seed(0)
    made = DiagonalKernel(3, 16, discretization)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    w = {name: value.double().numpy() for name, value in made.state_dict().items()}
    dt = np.exp(w["log_dt"])[:, None]
    a = -np.exp(w["inv_A_real"]) + 1j * w["A_imag"]
    b, c = (x[..., 0] + 1j * x[..., 1] for x in (w["B"], w["C"][0]))
    if discretization == "bilinear":
        pole, gain = (1 + a * dt / 2) / (1 - a * dt / 2), b * dt / (1 - a * dt / 2)
    else:
        pole, gain = np.exp(a * dt), b * (np.exp(a * dt) - 1) / a
    state, expected = gain, []
    for _ in range(200):
        expected.append(2 * (c * state).sum(1).real)
        state = pole * state
    np.testing.assert_allclose(made(200).detach().numpy(), np.array(expected).T, atol=1e-5)
