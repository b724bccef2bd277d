"""Numbers on their way from a GPU."""

import torch
from jaxtyping import Float
from torch import Tensor


class Arrival:
    """A number that a device has yet to compute, read later.

    `Tensor.item` waits for all that was queued before it, the step in hand included; then the device idles until the
    next step is queued. This waits for the number alone.
    """

    def __init__(self, value: Float[Tensor, ""]) -> None:
        """Ask for the number."""
        self._value = value.detach().to("cpu", non_blocking=True)
        self._there = torch.cuda.Event() if value.is_cuda else None  # type: ignore[no-untyped-call]
        if self._there is not None:
            self._there.record(torch.cuda.current_stream(value.device))

    def item(self) -> float:
        """Wait for the number."""
        if self._there is not None:
            self._there.synchronize()
        return self._value.item()
