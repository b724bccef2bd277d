"""A diagonal state-space model as a recurrence: one position, or one piece, after the other."""

import math
from collections.abc import Callable
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor

from dnasm.ops import fftconv
from dnasm.ops.ssm import vandermonde, waves

_PIECE = 256  # positions between two states when many come at once: powers of the poles are held for as many
Parts = tuple[Tensor, Tensor]
"""Real and imaginary parts."""
Discretized = tuple[Complex[Tensor, "h n"], Complex[Tensor, "h n"], Complex[Tensor, "h n"]]


class DiagonalSteps:
    """`s <- pole * s + b * u`, `y = 2 * Re(c . s)`: the diagonal model one position, or one piece, after the other.

    What it needs is computed when it is first asked for: a GPU then has the work before it still to do.
    """

    def __init__(self, discretized: Callable[[], Discretized], dtype: torch.dtype) -> None:
        """Take a model.

        Args:
            discretized: Gives the logarithms of the poles, the input and the output weights of a step, in complex128.
            dtype: Of inputs and outputs.
        """
        self._discretized, self.dtype = discretized, dtype

    @cached_property
    def _exact(self) -> Discretized:
        with torch.no_grad():
            return self._discretized()

    @cached_property
    def poles(self) -> Complex[Tensor, "h n"]:
        """What a state is multiplied by in a step."""
        return self._exact[0].exp().to(self.dtype.to_complex())

    @cached_property
    def planes(self) -> tuple[Float[Tensor, "n h"], ...]:
        """Poles, input weights and doubled output weights, real and imaginary parts each."""
        _, b, c = self._exact
        wide = (self.poles, *(x.to(self.dtype.to_complex()) for x in (b, 2 * c)))
        return tuple(part.mT.contiguous() for x in wide for part in (x.real, x.imag))

    def run(
        self, u: Float[Tensor, "*b h t"], state: Complex[Tensor, "*b h n"]
    ) -> tuple[Float[Tensor, "*b h t"], Complex[Tensor, "*b h n"]]:
        """Take in the next inputs; return their outputs and the state after them, written in place for a single one."""
        if u.shape[-1] == 1:
            writes, reads = self._weights
            state.mul_(self.poles).addcmul_(writes, u.to(state.dtype))
            reals = torch.view_as_real(state).flatten(-2)
            return torch.einsum("... h n, h n -> ... h", reals, reads)[..., None], state
        log_poles, b, c = self._exact
        kernel = vandermonde(b * c, log_poles, u.shape[-1], self.dtype)
        y = fftconv(u.reshape(-1, *u.shape[-2:]), kernel).reshape(u.shape)
        echo, real, imag = self.absorb(u, state.real, state.imag, fresh=False)
        return y if echo is None else y + echo, torch.complex(real, imag)

    @cached_property
    def _weights(self) -> tuple[Complex[Tensor, "h n"], Float[Tensor, "h m"]]:
        """Input weights, and those with which `2 * Re(c . s)` is one real product."""
        _, b, c = (x.to(self.dtype.to_complex()) for x in self._exact)
        return b, torch.view_as_real(2 * c.conj()).flatten(-2)

    def absorb(
        self, u: Float[Tensor, "*b h t"], real: Float[Tensor, "*b h n"], imag: Float[Tensor, "*b h n"], *, fresh: bool
    ) -> tuple[Float[Tensor, "*b h t"] | None, Float[Tensor, "*b h n"], Float[Tensor, "*b h n"]]:
        """Return what the state so far adds to the next outputs, and the state after them.

        Args:
            u: Inputs. In bfloat16 on a GPU they go into the products as they are.
            real: Real parts of the state.
            imag: Imaginary parts.
            fresh: Whether the state is nothing yet; then it adds nothing, which is returned as None.
        """
        size = min(u.shape[-1], _PIECE)
        inputs, product = u.reshape(-1, *u.shape[-2:]), self._product(size, u)
        state = tuple(rearrange(part.reshape(-1, *part.shape[-2:]), "b h n -> h b n") for part in (real, imag))
        old, held = state, None if fresh else state
        reads, echoes = None if fresh else self._reads(size), []
        for piece in torch.split(inputs, size, -1):
            passing = self._power(piece.shape[-1])
            if reads is not None:
                echoes.append(torch.bmm(torch.cat(old, -1), reads[:, : piece.shape[-1]].mT))
                old = _pass(old, passing, (None, None))
            added = product(rearrange(piece, "b h t -> h b t"))
            held = added if held is None else _pass(held, passing, added)
        assert held is not None, "there is at least one piece"
        real, imag = (rearrange(part, "h b n -> b h n").reshape(real.shape) for part in held)
        echo = None if fresh else rearrange(torch.cat(echoes, -1), "h b t -> b h t").reshape(u.shape)
        return echo, real, imag

    def _product(self, size: int, u: Tensor) -> Callable[[Float[Tensor, "h b t"]], Parts]:
        """Return what sums up to `size` inputs, each times its weight and the powers of the poles since it came.

        bfloat16 inputs on a GPU meet weights of two bfloat16 parts, which have 16 bits between them: the tensor cores
        read them as they are and sum in float32.
        """
        log_poles, b, _ = self._exact
        writes = _powers(b, log_poles, size, self.dtype, falling=True)
        if not (u.is_cuda and u.dtype == torch.bfloat16 and self.dtype == torch.float32):
            return lambda piece: _halves(torch.bmm(piece.to(self.dtype), writes[:, size - piece.shape[-1] :]))
        high = writes.bfloat16()
        both = torch.cat([high, (writes - high).bfloat16()], -1)

        def product(piece: Tensor) -> Parts:
            sums = torch.bmm(piece, both[:, size - piece.shape[-1] :], out_dtype=torch.float32)
            return _halves(torch.add(*sums.chunk(2, -1)))

        return product

    def _reads(self, size: int) -> Float[Tensor, "h t m"]:
        """Return the weights with which a state's real and imaginary parts come out after 1 to `size` steps."""
        log_poles, _, c = self._exact
        return _powers((2 * c * log_poles.exp()).conj(), log_poles.conj(), size, self.dtype, falling=False)

    def _power(self, count: int) -> Parts:
        power = (self._exact[0] * count).exp().to(self.dtype.to_complex())[:, None]
        return power.real, power.imag


def _halves(x: Float[Tensor, "h b m"]) -> Parts:
    real, imag = x.chunk(2, -1)
    return real, imag


def _pass(state: Parts, passing: Parts, added: tuple[Tensor | None, Tensor | None]) -> Parts:
    """Return `state * passing + added`."""
    (real, imag), (a, b) = state, passing
    parts = []
    for term, first, second, sign in ((added[0], real, imag, -1), (added[1], imag, real, 1)):
        product = a * first if term is None else torch.addcmul(term, a, first)
        parts.append(product.addcmul_(b, second, value=sign))
    return parts[0], parts[1]


def _powers(
    weights: Complex[Tensor, "h n"], log_poles: Complex[Tensor, "h n"], count: int, dtype: torch.dtype, *, falling: bool
) -> Float[Tensor, "h t m"]:
    """Weights times poles to the powers from 0, or down to it: the n real parts of each, then the imaginary ones.

    Few exponentials, in float64, whose products give the others.
    """
    step = math.isqrt(count - 1) + 1
    fine = torch.arange(step, device=log_poles.device)
    coarse = torch.arange(0, count, step, device=log_poles.device)
    if falling:
        fine, coarse = fine.flip(0), coarse.flip(0)
    many = weights[..., None] * waves(log_poles, coarse)
    a, b = (rearrange(part.to(dtype), "h n t -> h t 1 n") for part in (many.real, many.imag))
    few = waves(log_poles, fine)
    c, d = (rearrange(part.to(dtype), "h n t -> h 1 t n") for part in (few.real, few.imag))
    h, n = weights.shape
    found = torch.empty(h, len(coarse), step, 2, n, dtype=dtype, device=weights.device)
    torch.mul(a, c, out=found[..., 0, :]).addcmul_(b, d, value=-1)
    torch.mul(a, d, out=found[..., 1, :]).addcmul_(b, c)
    powers = found.flatten(3).flatten(1, 2)
    return powers[:, -count:] if falling else powers[:, :count]
