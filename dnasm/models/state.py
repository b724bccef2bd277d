"""What a model keeps of a sequence, so that the next base needs no look back at all of it.

One protocol for every mixer: `start` makes an empty state, `extend` takes the next positions, returns what leaves the
mixer there and brings the state up to date in place. A state can be copied (`snapshot`) and multiplied (`fork`).
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from jaxtyping import Float, Int64
from torch import Tensor

from dnasm.errors import ConfigError


@dataclass
class MixerState:
    """Base of each mixer's state: its tensors have one row a sequence; what is not a tensor is shared by copies."""

    position: int
    """Positions taken in so far."""
    place: Int64[Tensor, " 1"] | None = field(default=None, kw_only=True)
    """The position once more, on the device, where single steps are replayed: then they read it there."""
    again: bool = field(default=False, kw_only=True)
    """Whether so many steps are replayed that on a GPU compiling them pays."""

    def fork(self, copies: int) -> "MixerState":
        """Return an independent state in which every sequence stands `copies` times, its copies side by side."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "place"}
        rows: dict[str, Any] = {
            name: t.repeat_interleave(copies, 0) for name, t in held.items() if isinstance(t, Tensor)
        }
        return replace(self, place=None, **rows)

    def schedule(self) -> tuple[int, ...]:
        """Tell what the shapes of the next single step depend on, where it is replayed."""
        return ()


class StatefulMixer(Protocol):
    """A mixer that can go on from where it stopped."""

    def start(self, batch: int, capacity: int) -> MixerState:
        """Make the state before the first position.

        Args:
            batch: Sequences.
            capacity: Positions that will be asked for at most, in all.
        """
        ...

    def extend(self, x: Float[Tensor, "b c d"], state: MixerState) -> Float[Tensor, "b c d"]:
        """Mix the next positions, as `forward` over everything so far would have, and update the state."""
        ...


@dataclass
class DecodingState:
    """A model's state: that of each layer."""

    layers: list[MixerState]
    capacity: int
    """Positions that fit."""
    position: int = 0
    """Positions taken in so far."""
    again: bool = False
    """Whether the same shapes come again and again, so that on a GPU what is worth it is compiled."""

    def advance(self, count: int) -> None:
        """Count positions in.

        Raises:
            ConfigError: If they do not fit.
        """
        if self.position + count > self.capacity:
            raise ConfigError(
                f"this state was made for {self.capacity} positions and holds {self.position}: {count} more do not "
                "fit; start it with a larger capacity"
            )
        self.position += count

    def fork(self, copies: int) -> "DecodingState":
        """Return an independent state in which every sequence stands `copies` times, its copies side by side."""
        return replace(self, layers=[layer.fork(copies) for layer in self.layers])

    def snapshot(self) -> "DecodingState":
        """Return an independent copy: going on from one leaves the other as it is."""
        return self.fork(1)
