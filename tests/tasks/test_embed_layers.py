"""Embeddings of many layers, of every position, of both strands, of windows and of long sequences; Zarr."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import dnasm
from dnasm import cli, vocabulary
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Genome
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import save_model
from dnasm.tasks import embed_layers
from dnasm.tasks.embed import embed
from dnasm.tasks.pooling import pool_states

from .scoring import random_sequence, reverse_complement, small_model, write_fasta

SEQUENCE = random_sequence(400)
GAPPED = f"{SEQUENCE[:100]}{'N' * 60}{SEQUENCE[160:]}"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model()


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", c=SEQUENCE, gaps=GAPPED))


def test_layers_are_listed_and_found_by_name_and_number(model: LanguageModel) -> None:
    assert dnasm.layers(model) == ["layers.0", "layers.1", "ln_f"]
    texts = [SEQUENCE[:50], SEQUENCE[50:70]]
    result = embed(model, texts, layer=["layers.1", 0, -1])
    assert result.shape == (2, 3, 16)
    assert result.layers == ("layers.1", "layers.0", "ln_f")
    for i, layer in enumerate((1, 0, "ln_f")):
        assert_array_equal(result[:, i], embed(model, texts, layer=layer))
    assert_array_equal(embed(model, texts, layer=[0])[:, 0], embed(model, texts, layer="layers.0"))


@pytest.mark.parametrize("layer", [2, -2, "layers.2", "block", [], [0, "layers.0"]])
def test_what_is_no_layer_is_refused(model: LanguageModel, layer: object) -> None:
    with pytest.raises(ConfigError, match=r"layers\.0, layers\.1, ln_f|name each layer once"):
        embed(model, ["ACGT"], layer=layer)  # type: ignore[arg-type]


def test_many_layers_cost_one_forward_pass(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = type(model.backbone.layers[0]).forward
    monkeypatch.setattr(type(model.backbone.layers[0]), "forward", lambda self, x: calls.append(1) or forward(self, x))
    embed(model, ["ACGT"], layer=[0, 1])
    assert len(calls) == 2
    assert not any(module._forward_hooks for module in model.modules())


def test_an_equivariant_model_has_both_strands_in_every_layer() -> None:
    from dataclasses import replace

    from dnasm.models.backbone import build_model

    torch.manual_seed(0)
    model = build_model(replace(small_model().config, equivariant=True, embedding_dropout=0.0)).eval()
    result = embed(model, [SEQUENCE[:40]], layer=[0, -1])
    assert result.shape == (1, 2, 32)
    assert_allclose(result[:, 0], embed(model, [SEQUENCE[:40]], layer=0), atol=1e-6)


def test_the_centre_is_the_middle_base() -> None:
    states = torch.arange(8.0)[None, :, None]
    for text, place in (("ACGTA", 2), ("ACGT", 2), ("NACGN", 2), ("NNNAC", 4), ("NNA", 2)):
        tokens = torch.full((1, 8), vocabulary.PAD, dtype=torch.uint8)
        tokens[0, : len(text)] = torch.from_numpy(vocabulary.encode(text))
        assert pool_states(states, tokens, "centre").item() == place


def test_none_keeps_every_position(model: LanguageModel) -> None:
    texts = [SEQUENCE[:50], "ACNGT", SEQUENCE[60:100]]
    result = embed(model, texts, pool="none", layer=[0, -1])
    assert result.offsets is not None
    assert result.offsets.tolist() == [0, 50, 55, 95]
    assert result.shape == (95, 2, 16)
    assert len(result) == 3
    with torch.inference_mode():
        expected = model.hidden(torch.from_numpy(vocabulary.encode(texts[2]))[None], 0)[0]
    assert_allclose(result[55:, 0], expected, atol=1e-5)
    single = embed(model, texts, pool="none")
    assert_array_equal(result[:, 1], single)
    assert_allclose(single[:50].mean(0), embed(model, texts)[0], atol=1e-5)
    assert embed(model, [], pool="none").shape == (0, 16)


def test_both_strands_stand_side_by_side(model: LanguageModel) -> None:
    text = SEQUENCE[:50]
    own, other = (np.asarray(embed(model, [t])) for t in (text, reverse_complement(text)))
    assert_array_equal(embed(model, [text], strands="concat"), np.concatenate([own, other], 1))
    positions = np.asarray(embed(model, [text], strands="concat", pool="none"))
    turned = np.asarray(embed(model, [reverse_complement(text)], strands="concat", pool="none"))
    assert_array_equal(turned[::-1, 16:], positions[:, :16])
    assert_array_equal(turned[::-1, :16], positions[:, 16:])


def test_windows_tile_what_is_longer(model: LanguageModel, genome: Genome, tmp_path: Path) -> None:
    result = embed(model, genome.path, window=60, stride=40)
    own = [i for i, contig in enumerate(result.contig) if contig == "c"]
    places = [(int(result.start[i]), int(result.end[i])) for i in own]
    assert places == [(start, min(start + 60, 400)) for start in range(0, 380, 40)]
    assert result.ids[own[1]] == "c:40-100"
    assert_array_equal(result[own], embed(model, [SEQUENCE[a:b] for a, b in places]))
    # 100 to 160 is N, one window of `gaps` lies within it
    whole = embed(model, genome.path, window=20)
    assert len(whole) == 20 + 17
    (tmp_path / "r.bed").write_text("c\t10\t75\tgene\t0\t-\n")
    reverse = embed(model, tmp_path / "r.bed", genome, window=50)
    assert reverse.ids.tolist() == ["gene:10-60", "gene:60-75"]
    assert_array_equal(reverse, embed(model, [reverse_complement(SEQUENCE[a:b]) for a, b in ((10, 60), (60, 75))]))
    with pytest.raises(ConfigError, match="stride is 5, and there is no window"):
        embed(model, ["ACGT"], stride=5)
    with pytest.raises(ConfigError, match="window is 0"):
        embed(model, ["ACGT"], window=0)


def test_a_place_is_a_region(model: LanguageModel, genome: Genome) -> None:
    result = embed(model, "c:11-60", genome)
    assert (result.start[0], result.end[0]) == (10, 60)
    assert_array_equal(result, embed(model, [SEQUENCE[10:60]]))
    with pytest.raises(InputError, match="neither a file nor a place"):
        embed(model, "nowhere", genome)


@pytest.mark.parametrize("pool", ["mean", "max", "last", "centre", "none"])
def test_long_sequences_go_piece_by_piece(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("h3", None)
    text, layer = f"NN{SEQUENCE[:100]}NNN{SEQUENCE[100:300]}N", [0, "ln_f"]
    whole = embed(model, [text, "ACGT"], pool=pool, layer=layer, strands="concat")  # type: ignore[arg-type]
    monkeypatch.setattr(embed_layers, "PIECE", 64)
    lengths = []
    extend = type(model.backbone).extend
    monkeypatch.setattr(
        type(model.backbone), "extend", lambda self, t, *rest: lengths.append(t.shape[1]) or extend(self, t, *rest)
    )
    pieces = embed(model, [text, "ACGT"], pool=pool, layer=layer, strands="concat")  # type: ignore[arg-type]
    assert max(lengths) == 64
    assert_allclose(pieces, whole, atol=2e-5)


@pytest.mark.parametrize("pool", ["max", "centre", "none"])
def test_nothing_depends_on_batches_and_order(model: LanguageModel, pool: str) -> None:
    texts = [random_sequence(length, seed=length) for length in (1, 7, 60, 63, 64, 65, 130, 256)]
    many = {"layer": [0, -1], "pool": pool, "strands": "concat"}
    together = embed(model, texts, **many)  # type: ignore[arg-type]
    alone = np.concatenate([embed(model, [text], **many, batch_size=1) for text in texts])  # type: ignore[arg-type]
    assert_array_equal(together, alone)
    backwards = embed(model, texts[::-1], **many, batch_size=3)  # type: ignore[arg-type]
    if pool != "none":
        assert_array_equal(np.asarray(backwards)[::-1], together)


def test_a_full_device_gives_the_same_vectors(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [random_sequence(64, seed) for seed in range(20)]
    expected = embed(model, texts, layer=[0, -1])
    hidden, sizes = LanguageModel.hidden, []

    def full(self: LanguageModel, tokens: torch.Tensor, layer: int = -1) -> torch.Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("full")
        return hidden(self, tokens, layer)

    monkeypatch.setattr(LanguageModel, "hidden", full)
    assert_array_equal(embed(model, texts, layer=[0, -1]), expected)
    assert sizes[0] == 20
    assert max(sizes[-5:]) <= 3
    assert capsys.readouterr().err.count("halving the batch until it fits") == 1


@pytest.fixture(scope="module")
def command(model: LanguageModel, genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = save_model(model, tmp_path_factory.mktemp("model") / "m", {})
    return ["embed", "--model", str(folder), "--regions", str(genome.path), "--device", "cpu", "--quiet"]


@pytest.mark.parametrize("pool", ["mean", "none"])
@pytest.mark.parametrize("layer", ["-1", "[0, ln_f]"])
def test_zarr_holds_what_the_function_returns(
    model: LanguageModel, genome: Genome, command: list[str], tmp_path: Path, pool: str, layer: str
) -> None:
    import zarr

    out = tmp_path / "o.zarr"
    words = ["--pool", pool, "--layer", layer, "--window", "100", "--out", str(out)]
    assert cli.main([*command, *words]) == 0
    group = zarr.open_group(str(out), mode="r")
    many = -1 if layer == "-1" else [0, "ln_f"]
    expected = embed(model, genome.path, pool=pool, layer=many, window=100)  # type: ignore[arg-type]
    assert_array_equal(group["vectors"][:], expected.vectors)
    for name, column in expected.columns.items():
        assert group[{"id": "id"}.get(name, name)][:].tolist() == column.tolist()
    assert dict(group.attrs) == expected.provenance
    if pool == "none":
        assert_array_equal(group["offsets"][:], expected.offsets)
    assert cli.main([*command, *words]) == 73
    assert cli.main([*command, *words, "--force"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.zarr", "o.zarr.run.json"]


def test_zarr_appears_whole_or_not_at_all(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes").touch()
    assert cli.main([*command, "--window", "100", "--out", str(tmp_path / "mine.zarr"), "--force"]) == 73
    assert cli.main([*command, "--window", "100", "--pool", "none", "--out", str(tmp_path / "o.npz")]) == 2
    assert "streamed to --out OUT.zarr" in capsys.readouterr().err
    monkeypatch.setattr(LanguageModel, "hidden", lambda *_: (_ for _ in ()).throw(InputError("in the middle")))
    assert cli.main([*command, "--window", "100", "--out", str(tmp_path / "o.zarr")]) == 65
    assert [path.name for path in tmp_path.iterdir()] == ["mine.zarr"]


@pytest.mark.parametrize("suffix", ["parquet", "h5ad"])
def test_tables_hold_a_column_for_each_layer(
    model: LanguageModel, genome: Genome, command: list[str], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"o.{suffix}"
    assert cli.main([*command, "--layer", "[0, ln_f]", "--window", "100", "--out", str(out)]) == 0
    expected = embed(model, genome.path, layer=[0, "ln_f"], window=100)
    if suffix == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(out)
        found = [np.array(table[f"vector_{name}"].to_pylist(), np.float32) for name in expected.layers]
    else:
        import anndata

        data = anndata.read_h5ad(out)
        found = [np.asarray(data.obsm[name]) for name in expected.layers]
        assert data.uns["layer"] == "layers.0,ln_f"
    assert_array_equal(np.stack(found, 1), expected)
