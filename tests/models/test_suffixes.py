"""Going on from a shared beginning gives the numbers of whole sequences, whatever else is in the batch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models.backbone import LanguageModel, build_model, cast_model
from dnasm.models.likelihood import target_log_probs
from dnasm.models.suffixes import HyenaReader, StateReader, prefix_reader
from dnasm.vocabulary import A, N

CUT, ROOM = 37, 59
SMALL = ModelConfig(
    d_model=16, d_inner=24, num_layers=3, max_length=128, filter_order=8, state_size=8, num_heads=2, rotary_dim=4,
    filter_group=4, modes=4, medium_taps=16,
)  # fmt: skip


def _model(config: ModelConfig = SMALL, noise: float = 0.1) -> LanguageModel:
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


def _tokens(*shape: int) -> Tensor:
    return torch.randint(A, N + 1, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("hyena", {}),
        ("hyena", {"short_filter": 1}),
        ("hyena", {"short_filter": 5, "num_layers": 2}),
        ("attention", {}),
        ("multihybrid", {"attention_layers": [2]}),
        ("cnn", {}),
    ],
)
@torch.inference_mode()
def test_suffixes_have_the_log_probabilities_of_whole_sequences(family: str, more: dict[str, object]) -> None:
    model = _model(replace(SMALL, family=family, **more))  # type: ignore[arg-type]
    reader = prefix_reader(model)
    assert isinstance(reader, HyenaReader if family == "hyena" else StateReader)
    prefixes, rows, suffixes = _tokens(3, CUT), [0, 2, 2, 1, 0], _tokens(5, ROOM)
    whole = torch.cat([prefixes[rows], suffixes], 1)
    expected = target_log_probs(model(whole), whole)[:, CUT - 1 :]
    held = reader.read(prefixes, ROOM)
    for _ in range(2):  # what was read of the prefixes is left as it is
        torch.testing.assert_close(reader.log_probs(held, rows, suffixes), expected, rtol=0, atol=2e-5)
    one = reader.log_probs(held, [1, 1], suffixes[:2])
    whole = torch.cat([prefixes[[1, 1]], suffixes[:2]], 1)
    torch.testing.assert_close(one, target_log_probs(model(whole), whole)[:, CUT - 1 :], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("width", "cut", "room"), [(16, 37, 59), (128, 512, 512), (96, 300, 211)])
@torch.inference_mode()
def test_a_row_is_the_same_bit_for_bit_in_any_batch(width: int, cut: int, room: int) -> None:
    config = replace(SMALL, d_model=width, d_inner=2 * width, num_layers=2, max_length=1024)
    reader = prefix_reader(_model(config, 0.02))
    assert reader is not None
    prefixes, rows, suffixes = _tokens(3, cut), [0, 0, 1, 2, 2, 2], _tokens(6, room)
    together = reader.log_probs(reader.read(prefixes, room), rows, suffixes)
    for row, suffix, values in zip(rows, suffixes, together, strict=True):
        alone = reader.log_probs(reader.read(prefixes[row : row + 1], room), [0], suffix[None])
        assert torch.equal(alone[0], values)


@pytest.mark.parametrize("threads", [2, 3])
@torch.inference_mode()
def test_a_row_is_the_same_bit_for_bit_on_any_number_of_threads(threads: int) -> None:
    reader = prefix_reader(_model(replace(SMALL, d_model=128, d_inner=256, num_layers=2, max_length=1024), 0.02))
    assert reader is not None
    prefixes, rows, suffixes = _tokens(3, 512), [0, 2, 0, 1, 2, 2, 2], _tokens(7, 512)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found.append(reader.log_probs(reader.read(prefixes, 512), rows, suffixes))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_some_models_read_whole_sequences() -> None:
    """Both sides seen: there is no going on. H3, and Hyena in bfloat16: it would be slower."""
    assert prefix_reader(_model(replace(SMALL, bidirectional=True))) is None
    assert prefix_reader(_model(replace(SMALL, family="h3"))) is None
    assert prefix_reader(torch.nn.Linear(2, 2)) is None
    narrow = _model()
    cast_model(narrow, torch.bfloat16)
    assert prefix_reader(narrow) is None
