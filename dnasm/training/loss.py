"""The loss of next-base prediction, and the tallies that report it."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from dnasm.models.likelihood import target_log_probs
from dnasm.training.arrival import Arrival
from dnasm.training.result import ValidationResult

MAX_POSITION_BINS = 1024


def next_base_loss(
    logits: Float[Tensor, "b l v"],
    tokens: UInt8[Tensor, "b l"],
    weights: UInt8[Tensor, "b l"] | Float[Tensor, "b l"],
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the next base over the scored targets, in nats, in float32.

    Likelihoods are renormalised over A, C, G and T, as everywhere in dnasm: a model that knows nothing has ln 4, and
    training does not spend its first hundred steps on learning that special tokens never follow. The first token of a
    window has nothing before it and is not a target; a batch without scored targets has loss 0.

    Args:
        logits: `logits[:, i]` predicts `tokens[:, i + 1]`.
        tokens: Token ids.
        weights: What each token counts as a target: 0 for N and padding.
    """
    scale = weights[:, 1:].float()
    return -(target_log_probs(logits, tokens) * scale).sum() / scale.sum().clamp_min(1e-6)


class ValidationTally:
    """Sums of one validation, in float64: by genome, and by the target's place in the window."""

    def __init__(self, num_genomes: int, window: int, device: torch.device) -> None:
        self._genomes = torch.zeros(3, num_genomes, dtype=torch.float64, device=device)
        self._places = torch.zeros(3, window, dtype=torch.float64, device=device)

    def add(
        self,
        logits: Float[Tensor, "b l v"],
        tokens: UInt8[Tensor, "b l"],
        weights: UInt8[Tensor, "b l"] | Float[Tensor, "b l"],
        genome: Integer[Tensor, " b"],
    ) -> None:
        """Count a batch."""
        scale = weights[:, 1:].double()
        nats = -target_log_probs(logits, tokens).double() * scale
        sums = torch.stack([nats, scale, (scale > 0).double()])  # three rows: nats, weights, targets
        self._genomes.index_add_(1, genome, sums.sum(2))
        self._places[:, 1:] += sums.sum(1)

    def result(self, reduce: Callable[[Tensor], Tensor]) -> ValidationResult:
        """Finish; `reduce` adds up a tensor over all ranks."""
        genomes, places = reduce(self._genomes).cpu(), reduce(self._places).cpu()
        nats, weight, targets = genomes.sum(1).tolist()
        return ValidationResult(
            nats / weight if weight else math.nan,
            int(targets),
            (genomes[0] / genomes[1]).tolist(),
            [int(n) for n in genomes[2].tolist()],
            _bins(places),
        )


def _bins(places: Float[Tensor, "3 window"]) -> list[tuple[int, int, int, float]]:
    """Join neighbouring places, so that a window of a million bases gives no more rows than one of a thousand."""
    width = max(1, math.ceil(places.shape[1] / MAX_POSITION_BINS))
    rows = []
    for start in range(0, places.shape[1], width):
        nats, weight, targets = places[:, start : start + width].sum(1).tolist()
        if weight:
            rows.append((start, min(start + width, places.shape[1]), int(targets), nats / weight))
    return rows


class RunningMean:
    """Mean of what was added since it was last read; it stays on the device until then."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        self._values.append(value.detach())

    def take(self) -> Arrival | None:
        """Return the mean and start again; None if nothing was added."""
        values: Sequence[Tensor] = self._values
        self._values = []
        return Arrival(torch.stack(list(values)).double().mean()) if values else None
