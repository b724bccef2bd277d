"""Hidden states after one or many layers, whole or piece by piece."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm.errors import ConfigError
from dnasm.models.backbone import LanguageModel
from dnasm.models.chunks import PIECE, hidden_chunks, in_pieces
from dnasm.models.strands import join_hidden

Layer = int | str
"""0 to n - 1 or `layers.0` and so on: after that block; -1 or `ln_f`: after the final norm."""

FINAL = "ln_f"


def layers(model: nn.Module) -> list[str]:
    """List the names of a model's layers that embeddings can be taken from, in the order of the forward pass.

    Raises:
        ConfigError: If the model is none of dnasm's.
    """
    count = getattr(getattr(model, "config", None), "num_layers", None)
    if count is None:
        raise ConfigError(f"a {type(model).__name__} does not say how many layers it has")
    return [*(f"layers.{i}" for i in range(count)), FINAL]


def find_layers(model: nn.Module, chosen: Layer | Sequence[Layer]) -> list[int]:
    """Turn names and numbers into numbers, -1 for the final norm.

    Raises:
        ConfigError: If one is no layer of the model; the message lists them. Or if none or one twice is chosen.
    """
    names = layers(model)
    listed = [chosen] if isinstance(chosen, int | str) else list(chosen)
    found = []
    for layer in listed:
        text = str(layer)
        number = int(text) if text.lstrip("-").isdigit() else names.index(text) if text in names else None
        if number is None or not (-1 <= number < len(names) - 1 or text == FINAL):
            raise ConfigError(
                f"layer {text} is not one of this model's: 0 to {len(names) - 2}, -1, or a name: {', '.join(names)}"
            )
        found.append(-1 if number == len(names) - 1 else number)
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"layer is {listed}; name each layer once, and one at least")
    return found


def layer_names(model: nn.Module, numbers: Sequence[int]) -> tuple[str, ...]:
    """Name what `find_layers` found."""
    names = layers(model)
    return tuple(names[number] for number in numbers)


def hidden_layers(
    model: nn.Module, tokens: Integer[Tensor, "b l"], numbers: Sequence[int]
) -> Float[Tensor, "b l layers d"]:
    """Hidden states after several layers, from one forward pass."""
    if len(numbers) == 1 or not isinstance(model, LanguageModel):
        return torch.stack([model.hidden(tokens, number).float() for number in numbers], 2)  # type: ignore[operator]
    kept: dict[int, Tensor] = {}

    def keep(number: int, output: Tensor) -> None:
        kept[number] = (join_hidden(output) if model.config.equivariant else output).float()

    handles = [
        model.backbone.layers[number].register_forward_hook(lambda _m, _a, output, number=number: keep(number, output))
        for number in numbers
        if number != -1
    ]
    deepest = -1 if -1 in numbers else max(numbers)
    try:
        last = model.hidden(tokens, deepest)
    finally:
        for handle in handles:
            handle.remove()
    kept[deepest] = last.float()
    return torch.stack([kept[number] for number in numbers], 2)


def takes_pieces(model: nn.Module, length: int) -> bool:
    """Tell whether a sequence is so long that it goes through the model piece by piece."""
    return in_pieces(model, length, PIECE)


def hidden_pieces(
    model: LanguageModel, tokens: Integer[Tensor, "1 l"], numbers: Sequence[int]
) -> Iterator[Float[Tensor, "c layers d"]]:
    """The same piece by piece, equal to it up to rounding; several layers are several passes, side by side."""
    passes = [hidden_chunks(model, tokens, PIECE, number) for number in numbers]
    for parts in zip(*passes, strict=True):
        yield torch.stack([part[0].float() for part in parts], 1)
