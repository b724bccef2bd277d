"""A long input in pieces gives what it gives at once, and H3 holds no more for it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import dnasm
from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel
from dnasm.models.chunks import PIECE, hidden_chunks, in_pieces, log_probs, logit_chunks
from dnasm.models.likelihood import target_log_probs

Maker = Callable[[ModelConfig], LanguageModel]


@pytest.mark.parametrize("piece", [1, 50, 64, 130, 1000])
def test_pieces_joined_are_the_whole(model: LanguageModel, tokens: Tensor, piece: int) -> None:
    for layer in (0, 1, -1):
        joined = torch.cat(list(hidden_chunks(model, tokens, piece, layer)), 1)
        torch.testing.assert_close(joined, model.hidden(tokens, layer).detach(), atol=5e-5, rtol=1e-4)
    logits = torch.cat(list(logit_chunks(model, tokens, piece)), 1)
    torch.testing.assert_close(logits, model(tokens).detach(), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("piece", [1, 50, 64, 129, 130])
@torch.no_grad()
def test_log_probs_are_those_of_the_whole(model: LanguageModel, tokens: Tensor, piece: int) -> None:
    expected = target_log_probs(model(tokens), tokens)
    torch.testing.assert_close(log_probs(model, tokens, piece), expected, atol=5e-5, rtol=1e-4)


def test_what_grows_with_the_input_is_read_at_once(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    for name, config in configs.items():
        expected = name in ("h3", "h3-heads", "multihybrid", "cnn")
        assert in_pieces(make_model(config), 300, 100) is expected, name
    assert not in_pieces(make_model(replace(configs["h3"], bidirectional=True)), 300, 100)


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


_PEAK = """
import dataclasses, json, resource, sys, torch
from conftest import CONFIGS, shaken
import dnasm
from dnasm.tasks import embed_layers
from dnasm.models.chunks import log_probs

embed_layers.PIECE = 1 << 12

torch.set_num_threads(1)
config = dataclasses.replace(CONFIGS[sys.argv[1]], num_layers=1, d_model=16, d_inner=16, attention_layers=[])
model, peaks = shaken(config), []
with torch.inference_mode():
    for length in (1 << 12, 1 << 13, 1 << 19):
        tokens = torch.randint(7, 11, (1, length)).to(torch.uint8)
        log_probs(model, tokens, 1 << 12), dnasm.embed(model, [tokens[0].numpy()])
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
print(json.dumps(peaks))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux alone")
@pytest.mark.parametrize("name", ["h3", "modal", "multihybrid"])
def test_a_long_input_adds_its_result_to_the_memory_and_no_more(configs: dict[str, ModelConfig], name: str) -> None:
    """In a fresh process: half a million bases beside eight thousand. At once they would take ten times as much."""
    outcome = subprocess.run(
        [sys.executable, "-c", _PEAK, name], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    _, short, long = json.loads(outcome.stdout)
    kept = (1 << 19) * (4 + 4 + 1 + 8)  # log-probabilities, joined; tokens, and as they were drawn
    at_once = replace(configs[name], d_model=16, d_inner=16, num_layers=1, attention_layers=[])
    assert long - short < 2 * kept < at_once.memory(1 << 19, 1, training=False) / 6


@pytest.mark.parametrize("name", ["h3", "h3-heads", "modal", "multihybrid", "cnn"])
@torch.inference_mode()
def test_verbs_on_three_pieces_give_what_one_forward_call_gives(
    configs: dict[str, ModelConfig], make_model: Maker, name: str
) -> None:
    model = make_model(replace(configs[name], num_layers=1, d_model=16, d_inner=16, attention_layers=[]))
    tokens = torch.randint(7, 11, (1, 2 * PIECE + 1000), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert in_pieces(model, tokens.shape[1])
    terms, hidden = target_log_probs(model(tokens), tokens), model.hidden(tokens)[0]
    assert terms.std() > 0.1
    torch.testing.assert_close(log_probs(model, tokens), terms, atol=1e-4, rtol=0)
    likelihood = dnasm.log_likelihood(model, [tokens[0].numpy()])
    assert likelihood[0] == pytest.approx(terms.double().sum().item(), rel=1e-7)
    vectors = torch.from_numpy(np.asarray(dnasm.embed(model, [tokens[0].numpy()])))[0]
    torch.testing.assert_close(vectors, hidden.mean(0), atol=1e-5, rtol=0)
    assert vectors.abs().max() > 0.1


def test_what_cannot_be_is_named(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model, long = make_model(configs["hyena"]), torch.full((1, 301), 7)
    with pytest.raises(ConfigError, match="max_length is 300"):
        next(hidden_chunks(model, long))
    with pytest.raises(ConfigError, match="layer 2 is not"):
        next(hidden_chunks(model, long[:, :9], layer=2))
    with pytest.raises(ConfigError, match="piece is 0"):
        next(hidden_chunks(model, long[:, :9], 0))
