"""Who is timed by `dnasm bench fftconv`: this op, torch's transforms of whole tensors, packages that are here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dnasm.ops import Spectrum, fftconv, spectrum

Convolution = Callable[..., Tensor]
"""`conv(u, k, in_gate, out_gate)`; k is what `prepare` made of the filter where that is timed apart."""


@dataclass(frozen=True)
class Contender:
    """A way to convolve, as a user would call it."""

    name: str
    convolve: Convolution
    prepare: Callable[[Tensor, int], Any] | None = None
    """Transforms the filter for signals of a length, where that can be done ahead."""
    takes: Callable[[int], bool] = lambda length: True
    """Whether it is made for signals of a length."""


def ours(u: Tensor, k: Tensor | Spectrum, in_gate: Tensor | None = None, out_gate: Tensor | None = None) -> Tensor:
    """This package."""
    return fftconv(u, k, in_gate=in_gate, out_gate=out_gate)


def _room(length: int) -> int:
    return 1 << (2 * length - 1).bit_length()


def _gated(convolve: Convolution) -> Convolution:
    """Gates as separate products, for contenders that fuse none."""

    def run(u: Tensor, k: Tensor, in_gate: Tensor | None = None, out_gate: Tensor | None = None) -> Tensor:
        y = convolve(u if in_gate is None else u * in_gate, k)
        return y if out_gate is None else y * out_gate

    return run


def _rfft(u: Tensor, k: Tensor) -> Tensor:
    n, length = _room(u.shape[-1]), u.shape[-1]
    values = k if k.is_complex() else torch.fft.rfft(k[..., :length].float(), n)
    return torch.fft.irfft(torch.fft.rfft(u.float(), n) * values, n)[..., :length].to(u.dtype)


def _complex_fft(u: Tensor, k: Tensor) -> Tensor:
    n, length = _room(u.shape[-1]), u.shape[-1]
    values = k if k.is_complex() else torch.fft.fft(k[..., :length].float(), n)
    return torch.fft.ifft(torch.fft.fft(u.float(), n) * values, n).real[..., :length].to(u.dtype)


def _flash(u: Tensor, k: Tensor, in_gate: Tensor | None = None, out_gate: Tensor | None = None) -> Tensor:
    both = (None, None) if in_gate is None else (in_gate, out_gate)
    return _flash_module(_room(u.shape[-1]), u.dtype, u.device)(u, k, *both)


_modules: dict[tuple[Any, ...], Any] = {}


def _flash_module(size: int, dtype: torch.dtype, device: torch.device) -> Any:
    key = (size, dtype, device)
    if key not in _modules:
        _modules.clear()
        _modules[key] = import_module("flashfftconv").FlashFFTConv(size, dtype=dtype).to(device)
    return _modules[key]


def _flash_takes(length: int) -> bool:
    """Between powers of two it reads misaligned and ends the process (its issue 20).

    At 2^20 and more its launches on an H200 end in `invalid argument`, which it does not ask after: the error comes up
    in whatever runs next.
    """
    return length < 1 << 20 and length & (length - 1) == 0


def _subquadratic(u: Tensor, k: Tensor) -> Tensor:
    return import_module("subquadratic_ops_torch.fft_causal_conv1d").fft_causal_conv1d(u, k.to(u.dtype))


def contenders(device: str) -> list[Contender]:
    """Everyone who can run here, this package first."""
    everyone = [
        Contender("dnasm", ours, spectrum),
        Contender("torch rfft", _gated(_rfft), lambda k, length: torch.fft.rfft(k.float(), _room(length))),
        Contender("torch fft", _gated(_complex_fft), lambda k, length: torch.fft.fft(k.float(), _room(length))),
    ]
    if device == "cuda" and find_spec("flashfftconv"):
        everyone.append(Contender("flashfftconv", _flash, takes=_flash_takes))
    if device == "cuda" and find_spec("subquadratic_ops_torch"):
        everyone.append(Contender("subquadratic_ops_torch", _gated(_subquadratic)))
    return everyone


@dataclass(frozen=True)
class Problem:
    """One size and kind of call."""

    length: int
    batch: int
    channels: int
    gated: bool
    backward: bool
    device: str
    dtype: torch.dtype

    def inputs(self, seed: int) -> dict[str, Tensor]:
        """Noise of this size, and the gradient that comes back."""
        draw = partial(torch.randn, device=self.device, generator=torch.Generator(self.device).manual_seed(seed))
        shape = (self.batch, self.channels, self.length)
        names = ("u", "dy", "in_gate", "out_gate") if self.gated else ("u", "dy")
        signals = {name: draw(shape).to(self.dtype) for name in names}
        return {**signals, "k": draw((self.channels, self.length)) / self.length**0.5}

    @property
    def least_bytes(self) -> int:
        """Memory traffic that no implementation can avoid: every signal once in or out; the backward recomputes."""
        streams = (4 if self.gated else 2) + ((7 if self.gated else 3) if self.backward else 0)
        return streams * self.batch * self.channels * self.length * self.dtype.itemsize

    def run(self, contender: Contender, tensors: dict[str, Tensor], filter_: Any = None) -> tuple[Tensor, ...]:
        """Call a contender once, with the filter's transform inside its time unless `filter_` is that transform."""
        leaves = {name: t for name, t in tensors.items() if name != "dy" and not (name == "k" and filter_ is not None)}
        if self.backward:
            leaves = {name: t.detach().requires_grad_() for name, t in leaves.items()}
        signals = {name: t for name, t in leaves.items() if name != "k"}
        y = contender.convolve(k=leaves.get("k", filter_), **signals)
        return torch.autograd.grad(y, list(leaves.values()), tensors["dy"]) if self.backward else (y,)
