"""What reads the last hidden states."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LanguageModelHead(nn.Module):
    """Logits of the next token; a tied head has no weights, it is given the embedding's."""

    weight: nn.Parameter | None

    def __init__(self, d_model: int, rows: int, tied: bool) -> None:
        super().__init__()
        self.register_parameter("weight", None if tied else nn.Parameter(torch.empty(rows, d_model)))

    def forward(self, hidden: Float[Tensor, "b l d"], embedding: Float[Tensor, "v d"]) -> Float[Tensor, "b l v"]:
        weight = embedding if self.weight is None else self.weight
        return nn.functional.linear(hidden, weight)
