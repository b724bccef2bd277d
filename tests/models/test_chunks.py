"""A long input in pieces gives what it gives at once, and H3 holds no more for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel
from dnasm.models.chunks import hidden_chunks, logit_chunks

Maker = Callable[[ModelConfig], LanguageModel]


@pytest.mark.parametrize("piece", [1, 50, 64, 130, 1000])
def test_pieces_joined_are_the_whole(model: LanguageModel, tokens: Tensor, piece: int) -> None:
    for layer in (0, 1, -1):
        joined = torch.cat(list(hidden_chunks(model, tokens, piece, layer)), 1)
        torch.testing.assert_close(joined, model.hidden(tokens, layer).detach(), atol=5e-5, rtol=1e-4)
    logits = torch.cat(list(logit_chunks(model, tokens, piece)), 1)
    torch.testing.assert_close(logits, model(tokens).detach(), atol=5e-5, rtol=1e-4)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for out in result if isinstance(result, tuple) else (result,):
            if isinstance(out, Tensor):
                self.numbers = max(self.numbers, out.untyped_storage().nbytes())
        return result


def _largest(model: LanguageModel, length: int) -> int:
    tokens = torch.full((1, length), 7, dtype=torch.uint8)
    with _Largest() as watched:
        assert sum(part.shape[1] for part in hidden_chunks(model, tokens, 256)) == length
    return watched.numbers


def test_h3_needs_no_more_memory_for_more_pieces(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(configs["h3"])
    assert _largest(model, 512) == _largest(model, 4096)


def test_the_check_sees_a_cache_that_grows(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(configs["rotary"])
    assert _largest(model, 4096) > 2 * _largest(model, 512)


def test_what_cannot_be_is_named(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model, long = make_model(configs["hyena"]), torch.full((1, 301), 7)
    with pytest.raises(ConfigError, match="max_length is 300"):
        next(hidden_chunks(model, long))
    with pytest.raises(ConfigError, match="layer 2 is not"):
        next(hidden_chunks(model, long[:, :9], layer=2))
    with pytest.raises(ConfigError, match="piece is 0"):
        next(hidden_chunks(model, long[:, :9], 0))
