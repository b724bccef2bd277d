"""Embeddings: what is pooled, what a vector may depend on, and files in and out."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from dnasm import vocabulary
from dnasm.config import EmbedConfig
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.genome import Genome
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import load, save_model
from dnasm.tasks import embed as verb
from dnasm.tasks import embedder
from dnasm.tasks.embed import embed
from dnasm.tasks.embed_regions import Region
from dnasm.tasks.embeddings import Embeddings, model_hash
from dnasm.tasks.pooling import pool_states

from .scoring import random_sequence, reverse_complement, small_model, write_fasta

SEQUENCE = random_sequence(400)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model()


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", c=SEQUENCE, n="N" * 20 + "ACGT"))


def _bed(folder: Path, *lines: str) -> Path:
    (folder / "r.bed").write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
    return folder / "r.bed"


def _hidden(model: LanguageModel, text: str, layer: int) -> np.ndarray:
    with torch.inference_mode():
        return model.hidden(torch.from_numpy(vocabulary.encode(text))[None], layer)[0].numpy()


@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_pools_are_what_they_say(model: LanguageModel, layer: int) -> None:
    text = SEQUENCE[:50]
    states = _hidden(model, text, layer)
    for pool, expected in (("mean", states.mean(0)), ("max", states.max(0)), ("last", states[-1])):
        assert_allclose(embed(model, [text], layer=layer, pool=pool)[0], expected, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
def test_n_and_padding_are_left_out(pool: str) -> None:
    tokens = torch.from_numpy(vocabulary.encode("NACNG"))[None]
    tokens = torch.cat([tokens, torch.full((1, 3), vocabulary.PAD, dtype=torch.uint8)], 1)
    states = torch.arange(8.0)[None, :, None].expand(1, 8, 2) * torch.tensor([1.0, -1.0])
    pooled = pool_states(states, tokens, pool)[0].tolist()  # type: ignore[arg-type]
    kept = [1.0, 2.0, 4.0]
    expected = {"mean": [sum(kept) / 3, -sum(kept) / 3], "max": [4.0, -1.0], "last": [4.0, -4.0]}[pool]
    assert_allclose(pooled, expected, rtol=1e-6)


@pytest.mark.parametrize("family", ["hyena", "h3", "attention"])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_vector_depends_on_its_own_sequence_alone(family: str, pool: str) -> None:
    model = small_model(family)
    texts = [random_sequence(length, seed=length) for length in (1, 7, 60, 63, 64, 65, 130, 256)]
    together = np.asarray(embed(model, texts, pool=pool))  # type: ignore[arg-type]
    alone = np.concatenate([embed(model, [text], pool=pool, batch_size=1) for text in texts])  # type: ignore[arg-type]
    assert_array_equal(together, alone)
    backwards = np.asarray(embed(model, texts[::-1], pool=pool, batch_size=3))  # type: ignore[arg-type]
    assert_array_equal(backwards[::-1], together)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_read_ahead_and_change_nothing(
    model: LanguageModel, genome: Genome, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = _bed(tmp_path, *(f"c {i} {i + 20 + i % 7}" for i in range(12)))
    expected = embed(model, bed, genome)
    monkeypatch.setattr(embedder, "_CHUNK", 2)
    read, names, before = Region.read, [], []
    hidden = LanguageModel.hidden

    def tell(self: Region) -> np.ndarray:
        names.append(threading.current_thread().name)
        return read(self)

    def wait_for_readers(self: LanguageModel, tokens: torch.Tensor, layer: int = -1) -> torch.Tensor:
        deadline = time.monotonic() + 5
        while not before and len(names) < min(12, 2 * (workers + 1)) and time.monotonic() < deadline:
            time.sleep(0.001)
        before.append(len(names))
        return hidden(self, tokens, layer)

    monkeypatch.setattr(Region, "read", tell)
    monkeypatch.setattr(LanguageModel, "hidden", wait_for_readers)
    result = embed(model, bed, genome, num_workers=workers)
    assert_array_equal(result, expected)
    assert result.ids.tolist() == expected.ids.tolist()
    assert before[0] == 2 * (workers + 1), "chunks that were read before the model was asked about the first"
    assert {name.startswith("dnasm reader") for name in names} == {workers > 0}


def test_workers_end_with_an_error_of_the_model(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "hidden", lambda *_: (_ for _ in ()).throw(InputError("in the middle")))
    before = threading.active_count()
    with pytest.raises(InputError, match="in the middle"):
        embed(model, ["ACGT"] * 5, num_workers=2)
    assert threading.active_count() == before
    with pytest.raises(ConfigError, match="num_workers is -1"):
        embed(model, ["ACGT"], num_workers=-1)


def test_a_region_on_the_reverse_strand_is_read_there(model: LanguageModel, genome: Genome, tmp_path: Path) -> None:
    bed = _bed(tmp_path, "c 10 60 plus 0 +", "c 10 60 minus 0 -", "c 10 60")
    result = embed(model, bed, genome)
    expected = embed(model, [SEQUENCE[10:60], reverse_complement(SEQUENCE[10:60]), SEQUENCE[10:60]])
    assert_array_equal(result, expected)
    assert result.ids.tolist() == ["plus", "minus", "c:10-60(+)"]
    assert result.strand.tolist() == ["+", "-", "+"]
    assert (result.start.tolist(), result.end.tolist()) == ([10] * 3, [60] * 3)


def test_the_mean_of_both_strands_does_not_depend_on_the_strand(model: LanguageModel) -> None:
    texts = [SEQUENCE[:50], reverse_complement(SEQUENCE[:50])]
    both = np.asarray(embed(model, texts, strands="mean"))
    assert_array_equal(both[0], both[1])
    assert np.abs(both[0] - np.asarray(embed(model, texts))[0]).max() > 1e-3


def test_a_fasta_gives_a_vector_for_each_record(model: LanguageModel, tmp_path: Path) -> None:
    result = embed(model, write_fasta(tmp_path / "s.fa", one=SEQUENCE[:30], two=SEQUENCE[30:90]))
    assert result.ids.tolist() == ["one", "two"]
    assert_array_equal(result, embed(model, [SEQUENCE[:30], SEQUENCE[30:90]]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c 390 401", r"r.bed:1: c:390-401 is empty or leaves the contig, which has 400 bases"),
        ("c 5 5", "is empty"),
        ("x 5 6", r"r.bed:1: .* no contig 'x'"),
        ("c 0 300", "has 300 bases, the model takes at most 256"),
        ("n 0 10 gap", "gap: holds no A, C, G or T"),
        ("c 9 5", "r.bed:1"),
    ],
)
def test_bad_regions_are_named(model: LanguageModel, genome: Genome, tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        embed(model, _bed(tmp_path, line), genome)


def test_a_layer_that_is_none_is_refused(model: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="layer 7"):
        embed(model, ["ACGT"], layer=7)


def test_a_bed_needs_a_genome_and_sequences_do_not(model: LanguageModel, genome: Genome, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--genome"):
        embed(model, _bed(tmp_path, "c 0 9"))
    with pytest.raises(ConfigError, match="leave it out"):
        embed(model, ["ACGT"], genome)


def test_the_hash_is_of_the_weights(model: LanguageModel) -> None:
    again, other = small_model(), small_model()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-3
    assert model_hash(model) == model_hash(again) != model_hash(other)


@pytest.fixture(scope="module")
def model_folder(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(model, tmp_path_factory.mktemp("model") / "m", {})


def _config(model_folder: Path, genome: Genome, regions: Path, out: Path, **more: object) -> EmbedConfig:
    return EmbedConfig(model=str(model_folder), genome=str(genome.path), regions=str(regions), out=str(out), **more)  # type: ignore[arg-type]


def _read(path: Path) -> tuple[np.ndarray, list[str], str]:
    """Vectors, ids and model hash of a file."""
    if path.suffix == ".npz":
        with np.load(path) as held:
            return held["vectors"], held["id"].tolist(), str(held["model_hash"])
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return (
            np.array(table["vector"].to_pylist(), np.float32),
            table["id"].to_pylist(),
            (table.schema.metadata[b"model_hash"].decode()),
        )
    import anndata

    data = anndata.read_h5ad(path)
    return np.asarray(data.X), data.obs["id"].tolist(), str(data.uns["model_hash"])


def _facts(path: Path) -> tuple[dict[str, list[object]], dict[str, str]]:
    """What each row of a file is of, and how the vectors were made."""
    if path.suffix == ".npz":
        with np.load(path) as held:
            one = {name: str(held[name]) for name in held.files if held[name].ndim == 0}
            return {name: held[name].tolist() for name in held.files if held[name].ndim == 1}, one
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        made = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        return {name: table[name].to_pylist() for name in table.column_names if name != "vector"}, made
    import anndata

    data = anndata.read_h5ad(path)
    return {name: data.obs[name].tolist() for name in data.obs}, {name: str(data.uns[name]) for name in data.uns}


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".h5ad"])
def test_the_command_writes_what_the_function_returns(
    genome: Genome, model_folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = _bed(tmp_path, "c 0 30 a<b 0 +", "c 30 90 x 0 -", "c 0 30 x 0 +")
    verb.run(_config(model_folder, genome, bed, tmp_path / f"out{suffix}"))
    expected = embed(load(model_folder, "cpu"), bed, genome)
    vectors, ids, digest = _read(tmp_path / f"out{suffix}")
    assert_array_equal(vectors, expected)
    assert (ids, digest) == (["a<b", "x", "x"], expected.model_hash)
    columns, made = _facts(tmp_path / f"out{suffix}")
    assert columns == {
        "id": ["a<b", "x", "x"],
        "chrom": ["c"] * 3,
        "start": [0, 30, 0],
        "end": [30, 90, 30],
        "strand": ["+", "-", "+"],
    }
    assert made == expected.provenance
    assert (made["layer"], made["pool"], made["strands"]) == ("ln_f", "mean", "forward")
    assert "1 of them on strand -" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"r.bed", f"out{suffix}", f"out{suffix}.run.json"}


def test_no_regions_make_an_empty_file(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    verb.run(_config(model_folder, genome, _bed(tmp_path, "# none"), tmp_path / "out.npz"))
    assert _read(tmp_path / "out.npz")[0].shape == (0, 16)


def test_outputs_are_not_replaced_and_errors_leave_nothing(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    with pytest.raises(InputError):
        verb.run(_config(model_folder, genome, _bed(tmp_path, "c 0 30", "n 0 10"), out))
    assert [path.name for path in tmp_path.iterdir()] == ["r.bed"]
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        verb.run(_config(model_folder, genome, _bed(tmp_path, "c 0 30"), out))
    assert out.read_bytes() == b"mine"


def test_a_dry_run_writes_nothing(
    genome: Genome, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.run(_config(model_folder, genome, _bed(tmp_path, "c 0 30"), tmp_path / "out.npz", dry_run=True))
    assert "1 sequence," in capsys.readouterr().out
    assert not (tmp_path / "out.npz").exists()


def test_numpy_takes_embeddings_for_their_vectors(model: LanguageModel) -> None:
    result = embed(model, ["ACGT", "GGA"])
    assert isinstance(result, Embeddings)
    assert result.shape == np.asarray(result).shape == (2, 16)
    assert len(result) == 2
    assert np.asarray(result, dtype=np.float64).dtype == np.float64
