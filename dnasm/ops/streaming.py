"""The convolution chunk by chunk, for signals that arrive or are generated over time."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from dnasm.ops.fftconv import fftconv
from dnasm.ops.operands import require_tensor
from dnasm.ops.spectrum import Spectrum, spectrum


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """What the past still owes to the future: its contribution to the next `taps - 1` outputs."""

    owed: Float[Tensor, "b d t"]
    spectrum: Spectrum | None


def fftconv_step(
    chunk: Float[Tensor, "b d c"], k: Float[Tensor, "d lk"], state: StreamState | None = None, *, backend: str = "auto"
) -> tuple[Float[Tensor, "b d c"], StreamState]:
    """Convolve the next chunk of a signal; the chunks' results, joined, are `fftconv` of the whole.

    The cost of a step depends on the chunk and the filter alone, not on what came before. Gates and skip act position
    by position: apply them outside.

    Args:
        chunk: The next positions, any number of them.
        k: The filter, the same in every step.
        state: What the last step returned; None at the start.
        backend: As in `fftconv`.

    Returns:
        The chunk's outputs and the state for the next step.

    Raises:
        ValueError: If the state is of another filter's taps, batch or channels.
    """
    require_tensor("chunk", chunk)
    require_tensor("k", k)
    owed = (*chunk.shape[:-1], k.shape[-1] - 1)
    if state is not None and (not isinstance(state, StreamState) or state.owed.shape != owed):
        found = tuple(state.owed.shape) if isinstance(state, StreamState) else type(state).__name__
        raise ValueError(f"state is {found}, chunk and k need {owed}: pass what the last step returned, None at first")
    size, later = chunk.shape[-1], k.shape[-1] - 1
    total = size + later
    kept = None if state is None else state.spectrum
    if kept is None or kept.length != total or kept.k is not k:
        kept = spectrum(k, total)
    y = fftconv(pad(chunk, (0, later)), kept, backend=backend)
    if state is not None:
        y = y + pad(state.owed, (0, size)).to(y.dtype)
    return y[..., :size], StreamState(y[..., size:], kept)
