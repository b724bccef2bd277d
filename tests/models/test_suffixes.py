"""Going on from a shared beginning gives the numbers of whole sequences, whatever else is in the batch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models import hyena_rows
from dnasm.models.backbone import LanguageModel, build_model, cast_model
from dnasm.models.hyena_rows import RowReader
from dnasm.models.hyena_suffixes import HyenaReader
from dnasm.models.likelihood import target_log_probs
from dnasm.models.suffixes import StateReader, prefix_reader
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


def _tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(A, N + 1, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def _variants(references: Tensor, rows: list[int]) -> Tensor:
    """Each a reference with a base changed somewhere; the last but one shifted from there on, the last as it was."""
    suffixes = references[rows].clone()
    for number, suffix in enumerate(suffixes[:-1]):
        place = number * len(suffix) // len(rows)
        suffix[place] = A + (suffix[place] - A + 1) % 4
    suffixes[-2, place:] = suffixes[-2, place:].roll(1)
    return suffixes


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
    prefixes, references, rows = _tokens(3, CUT), _tokens(3, ROOM, seed=2), [0, 2, 2, 1, 0, 1]
    suffixes = _variants(references, rows)
    whole = torch.cat([prefixes[rows], suffixes], 1)
    expected = target_log_probs(model(whole), whole)[:, CUT - 1 :]
    held = reader.read(prefixes, references)
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
    prefixes, references, rows = _tokens(3, cut), _tokens(3, room, seed=2), [0, 0, 1, 2, 2, 2, 0]
    suffixes = _variants(references, rows)
    together = reader.log_probs(reader.read(prefixes, references), rows, suffixes)
    for row, suffix, values in zip(rows, suffixes, together, strict=True):
        one = slice(row, row + 1)
        alone = reader.log_probs(reader.read(prefixes[one], references[one]), [0], suffix[None])
        assert torch.equal(alone[0], values)


@pytest.mark.parametrize("threads", [2, 3])
@torch.inference_mode()
def test_a_row_is_the_same_bit_for_bit_on_any_number_of_threads(threads: int) -> None:
    reader = prefix_reader(_model(replace(SMALL, d_model=128, d_inner=256, num_layers=2, max_length=1024), 0.02))
    assert reader is not None
    prefixes, references, rows = _tokens(3, 512), _tokens(3, 512, seed=2), [0, 2, 0, 1, 2, 2, 2]
    suffixes = _variants(references, rows)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found.append(reader.log_probs(reader.read(prefixes, references), rows, suffixes))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@torch.inference_mode()
def test_a_row_is_read_from_where_it_leaves_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what lies before, and a row that is its reference not at all; one base is no transform in the first layer."""
    seen, transforms, finish, transform = [], [], RowReader.finish, hyena_rows.fftconv

    def spy(self: RowReader, x: Tensor, y: Tensor, number: int, start: int) -> None:
        seen.append(tuple(x.shape[:2]))
        finish(self, x, y, number, start)

    reader, prefixes, references = HyenaReader(_model()), _tokens(1, CUT), _tokens(1, ROOM, seed=2)
    held = reader.read(prefixes, references)
    suffixes = references[[0, 0, 0]].clone()
    suffixes[0, 40], suffixes[1, 47] = A + (suffixes[0, 40] - A + 1) % 4, A + (suffixes[1, 47] - A + 1) % 4
    monkeypatch.setattr(RowReader, "finish", spy)
    monkeypatch.setattr(hyena_rows, "fftconv", lambda *a, **k: transforms.append(1) or transform(*a, **k))
    values = reader.log_probs(held, [0, 0, 0], suffixes)
    assert set(seen) <= {(1, ROOM - 40), (2, ROOM - 40)}
    assert sum(rows for rows, _ in seen) == 2 * SMALL.num_layers
    assert len(transforms) == len(seen) * (SMALL.num_layers - 1) // SMALL.num_layers
    assert torch.equal(values[:2, :40], values[[2, 2], :40])


def test_some_models_read_whole_sequences() -> None:
    """Both sides seen: there is no going on. H3, and Hyena in bfloat16: it would be slower."""
    assert prefix_reader(_model(replace(SMALL, bidirectional=True))) is None
    assert prefix_reader(_model(replace(SMALL, family="h3"))) is None
    assert prefix_reader(torch.nn.Linear(2, 2)) is None
    narrow = _model()
    cast_model(narrow, torch.bfloat16)
    assert prefix_reader(narrow) is None
