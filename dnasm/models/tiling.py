"""Exact online convolution with a long filter: every input is known only after the output before it.

Relaxed tiling: after input i, the last U inputs are convolved with the filter onto the next U outputs, U the largest
power of two that divides i. Each pair of an input and a later output is met exactly once, and n positions cost
O(n log^2 n).

Source: Flash Inference (Oncescu et al. 2024), algorithm 2; FutureFill (Agarwal et al. 2024).
"""

import torch
from jaxtyping import Float
from torch import Tensor

_DIRECT = 16  # up to this tile a product with a Toeplitz matrix is cheaper than two transforms


class TiledFilter:
    """A filter, and what its tiles need, made once."""

    def __init__(self, taps: Float[Tensor, "d n"]) -> None:
        self.taps = taps
        self._tiles: dict[int, Tensor] = {}

    def ahead(self, block: Float[Tensor, "b d size"]) -> Float[Tensor, "b d size"]:
        """Return what the last inputs, a power of two of them, add to as many outputs after them."""
        size = block.shape[-1]
        if size <= _DIRECT:
            # As a product over channels: (d, b, s) times (d, s, j).
            return torch.bmm(block.transpose(0, 1), self._toeplitz(size)).transpose(0, 1)
        spectrum = torch.fft.rfft(block, 2 * size) * self._spectrum(size)
        return torch.fft.irfft(spectrum, 2 * size)[..., size:]

    def _first(self, count: int) -> Float[Tensor, "d m"]:
        return torch.nn.functional.pad(self.taps[:, :count], (0, max(0, count - self.taps.shape[1])))

    def _toeplitz(self, size: int) -> Float[Tensor, "d s j"]:
        """`[s, j] = taps[size + j - s]`: input s of the block to output j of the next."""
        if size not in self._tiles:
            s, j = torch.arange(size)[:, None], torch.arange(size)[None]
            self._tiles[size] = self._first(2 * size)[:, (size + j - s).to(self.taps.device)]
        return self._tiles[size]

    def _spectrum(self, size: int) -> Tensor:
        """Of the lags 1 to 2 * size - 1; in a cyclic transform of 2 * size the second half does not wrap."""
        if size not in self._tiles:
            self._tiles[size] = torch.fft.rfft(self._first(2 * size), 2 * size)
        return self._tiles[size]
