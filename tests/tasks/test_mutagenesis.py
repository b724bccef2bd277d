"""All single changes of a sequence: against scoring them one by one, known models, finite differences, and files."""

import json
import math
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
from dnasm.tasks.measured_effects import agreements, read_measured
from dnasm.tasks.mutagenesis import mutagenesis
from dnasm.tasks.mutation_scan import input_gradient
from dnasm.tasks.region_input import Interval

from .scoring import PROBABILITIES, Composition, random_sequence, reverse_complement, small_model, write_fasta

LETTERS = random_sequence(300, 8)
N_AT = 205
PATCHED = f"{LETTERS[:N_AT]}N{LETTERS[N_AT + 1 :]}"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model(max_length=64)


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", c=PATCHED))


def test_a_known_composition_gives_exactly_its_ratios() -> None:
    result = mutagenesis(Composition(), "GATTNACA", gradient=False)
    assert np.asarray(result).shape == result.shape == (8, 4)
    own = [PROBABILITIES.get(letter, math.nan) for letter in "GATTNACA"]
    for strand, complement, given in (("forward", "ACGT", 0), ("reverse", "TGCA", 7)):
        p = np.array([PROBABILITIES[base] for base in complement])
        base = np.array([math.nan if math.isnan(x) else PROBABILITIES[complement["ACGT".index(b)]] for b, x in
                         zip("GATTNACA".replace("N", "A"), own, strict=True)])  # fmt: skip
        expected = np.log(p[None] / base[:, None])
        expected[given] = 0.0  # the first base of a strand is not predicted
        assert_allclose(getattr(result, strand)[:, :4], expected, atol=1e-6)
    assert_allclose(result.llr, (result.forward + result.reverse)[:, :4] / 2)
    assert np.isnan(result.llr[4]).all()
    assert np.isnan(result.deletion[4])
    assert [result.changes[i, "ACGT".index(b)] for i, b in enumerate("GATTNACA") if b != "N"] == [0.0] * 7


def test_every_change_is_what_scoring_it_alone_gives(model: LanguageModel) -> None:
    text = LETTERS[:40]
    result = mutagenesis(model, text, strands="forward")
    unchanged = dnasm.log_likelihood(model, [text])[0]
    for i in (0, 1, 17, 39):
        for column, base in enumerate("ACGT"):
            changed = dnasm.log_likelihood(model, [text[:i] + base + text[i + 1 :]])[0]
            assert_allclose(result.llr[i, column], changed - unchanged, atol=2e-5)
        shorter = dnasm.log_likelihood(model, [text[:i] + text[i + 1 :], text[:-1]])
        assert_allclose(result.deletion[i], shorter[0] - shorter[1], atol=2e-5)


def test_one_base_of_a_region_is_what_score_says(model: LanguageModel, genome: Genome) -> None:
    for pos in (1, 7, 150, 151, 293, 299):
        result = mutagenesis(model, f"c:{pos}", genome, window=32)
        ref = LETTERS[pos - 1]
        variants = [f"c:{pos}:{ref}:{alt}" for alt in "ACGT" if alt != ref]
        table = dnasm.score_variants(model, variants, genome, window=32)
        columns = ["ACGT".index(alt) for alt in "ACGT" if alt != ref]
        for name, values in (("llr", table.llr), ("forward", table.llr_forward), ("reverse", table.llr_reverse)):
            assert_allclose(getattr(result, name)[0, columns], values, atol=2e-5)
    # A base that differs from its neighbours, so that the deletion has one place only.
    pos = next(i for i in range(150, 200) if LETTERS[i - 1] != LETTERS[i] != LETTERS[i + 1]) + 1
    deleted = dnasm.score_variants(
        model, [f"c:{pos - 1}:{LETTERS[pos - 2 : pos]}:{LETTERS[pos - 2]}"], genome, window=32
    )
    assert_allclose(mutagenesis(model, f"c:{pos}", genome, window=32).deletion, deleted.llr, atol=2e-5)


@pytest.mark.parametrize("settings", [{"bidirectional": True}, {"equivariant": True}])
def test_a_model_of_masked_bases_gives_what_score_says(genome: Genome, settings: dict[str, bool]) -> None:
    model = small_model(max_length=64, **settings)
    result = mutagenesis(model, "c:1-30", genome, window=20)  # longer than half the window, at the contig's beginning
    assert np.isnan(result.deletion).all()
    assert np.isnan(result.gradient).all()
    variants = [f"c:{i + 1}:{ref}:{alt}" for i, ref in enumerate(LETTERS[:30]) for alt in "ACGT" if alt != ref]
    table = dnasm.score_variants(model, variants, genome, window=20, method="masked_llr")
    chosen = np.array([[alt != ref for alt in "ACGT"] for ref in LETTERS[:30]])
    for name, values in (("llr", table.llr), ("forward", table.llr_forward), ("reverse", table.llr_reverse)):
        assert_allclose(getattr(result, name)[:, :4][chosen], values, atol=2e-5)
    assert_array_equal(result.llr[~chosen], 0.0)
    patched = mutagenesis(model, f"c:{N_AT}-{N_AT + 2}", genome, window=20)
    assert np.isnan(patched.llr).all(1).tolist() == [False, True, False]


def test_a_sequence_is_its_own_window_for_a_model_of_masked_bases() -> None:
    model = small_model(max_length=64, bidirectional=True)
    text = f"{LETTERS[:20]}N{LETTERS[20:30]}"
    result = mutagenesis(model, text)
    tokens = torch.from_numpy(vocabulary.encode(text))[None]
    for place in (0, 7, 30):
        hidden = tokens.clone()
        hidden[0, place] = vocabulary.MASK
        with torch.inference_mode():
            expected = model(hidden)[0, place, 7:11].double().log_softmax(-1)
        assert_allclose(result.forward[place, :4], expected - expected["ACGT".index(text[place])], atol=2e-5)
    assert np.isnan(result.llr[20]).all()
    other = mutagenesis(model, reverse_complement(text))
    assert_array_equal(other.forward, result.reverse[::-1, [3, 2, 1, 0, 4]])


def test_a_long_region_is_taken_in_parts(model: LanguageModel, genome: Genome) -> None:
    whole = mutagenesis(model, "c:101-140", genome, window=32)
    assert whole.sequence == LETTERS[100:140]
    parts = [mutagenesis(model, place, genome, window=32) for place in ("c:101-116", "c:117-132", "c:133-140")]
    assert_allclose(whole.changes, np.concatenate([part.changes for part in parts]), atol=1e-6)
    assert (whole.contig, whole.start) == ("c", 100)


def test_the_reverse_complement_swaps_the_strands(model: LanguageModel) -> None:
    text = LETTERS[:40]
    one, other = mutagenesis(model, text), mutagenesis(model, reverse_complement(text))
    turned = [3, 2, 1, 0, 4]
    assert_array_equal(other.forward, one.reverse[::-1, turned])
    assert_array_equal(other.changes, one.changes[::-1, turned])
    assert_array_equal(other.gradient, one.gradient[::-1, ::-1])


@pytest.mark.parametrize("batch_size", [1, 7])
def test_nothing_depends_on_the_batch_size(model: LanguageModel, batch_size: int) -> None:
    assert_array_equal(mutagenesis(model, LETTERS[:20], batch_size=batch_size), mutagenesis(model, LETTERS[:20]))


def test_the_gradient_is_that_of_soft_letters() -> None:
    model = small_model("attention").double()
    tokens = vocabulary.encode(LETTERS[:12])
    gradient, step = input_gradient(model, tokens), 1e-5
    table = model.backbone.embeddings.word_embeddings.weight[7:11].detach().clone()

    def soft(letters: torch.Tensor) -> float:
        """Log-likelihood of a mixture of letters, as input and as what is scored."""
        handle = model.backbone.embeddings.register_forward_hook(lambda *_: (letters @ table)[None])
        with torch.no_grad():
            log_probs = model(torch.from_numpy(tokens)[None])[0, :-1, 7:11].log_softmax(-1)
        handle.remove()
        return float((letters[1:] * log_probs).sum())

    hard = torch.nn.functional.one_hot(torch.from_numpy(tokens).long() - 7, 4).double()
    for place, base in ((0, 2), (5, 0), (5, 3), (11, 1)):
        ends = []
        for sign in (1, -1):
            moved = hard.clone()
            moved[place, base] += sign * step
            ends.append(soft(moved))
        assert_allclose(gradient[place, base], (ends[0] - ends[1]) / (2 * step), rtol=1e-4)


def test_the_gradient_leaves_the_model_as_it_was(model: LanguageModel) -> None:
    model.train()
    input_gradient(model, vocabulary.encode("ACGT"))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    with pytest.raises(ConfigError, match="Composition has no embeddings"):
        mutagenesis(Composition(), "ACGT")


@pytest.mark.parametrize(
    ("text", "words"),
    [("ACGT" * 17, "at most 64"), ("A", "at least 2"), ("NNNN", "are N"), ("AC-T", "letter '-'")],
)
def test_bad_sequences_are_named(model: LanguageModel, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mutagenesis(model, text)


def _write_measured(path: Path, effects: np.ndarray, start: int, **changed: str) -> Path:
    """Write a table as the MPRA data have it; the older build's positions lie 5 further on."""
    lines = ["Element\tChrom\tGRCh37\tGRCh38\tRef\tAlt\tBarcodes\tDNA\tRNA\tCoefficient\tpValue"]
    for i, row in enumerate(effects):
        for alt, effect in zip("ACGT-", row, strict=True):
            if alt != LETTERS[start + i]:
                pos = start + i + 1
                lines.append(f"X\tc\t{pos + 5}\t{pos}\t{LETTERS[start + i]}\t{alt}\t20\t1\t1\t{effect}\t0.1")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def effects() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(30, 5)).round(3)


def test_measured_values_are_found_by_their_letters(genome: Genome, effects: np.ndarray, tmp_path: Path) -> None:
    path = _write_measured(tmp_path / "m.tsv", effects, 100)
    found = read_measured(str(path), genome, Interval("c", 100, 130), None, 10)
    own = np.array([[alt == LETTERS[100 + i] for alt in "ACGT-"] for i in range(30)])
    assert_array_equal(found, np.where(own, np.nan, effects))
    assert_array_equal(read_measured(str(path), genome, Interval("c", 110, 120), "X", 10), found[10:20])
    with pytest.raises(InputError, match="has no row of Y"):
        read_measured(str(path), genome, Interval("c", 100, 130), "Y", 10)
    with pytest.raises(InputError, match="no row of c"):
        read_measured(str(path), genome, Interval("c", 100, 130), None, 21)
    text = path.read_text()
    path.write_text(text.replace("\tc\t", "\tchrc\t"))
    assert_array_equal(read_measured(str(path), genome, Interval("c", 100, 130), None, 10), found)
    path.write_text(text + text.split("\n", 1)[1].replace("X\t", "Z\t"))
    with pytest.raises(InputError, match="2 elements were measured here; choose one: --element X"):
        read_measured(str(path), genome, Interval("c", 100, 130), None, 10)
    path.write_text(text.replace("\tRef\t", "\tR\t"))
    with pytest.raises(InputError, match="its header lacks Ref"):
        read_measured(str(path), genome, Interval("c", 100, 130), None, 10)
    path.write_text(text.replace("\t20\t", "\tmany\t", 1))
    with pytest.raises(InputError, match=r"m\.tsv:2: could not convert"):
        read_measured(str(path), genome, Interval("c", 100, 130), None, 10)


def test_another_build_is_refused(genome: Genome, effects: np.ndarray, tmp_path: Path) -> None:
    path = _write_measured(tmp_path / "m.tsv", effects, 100)
    shifted = path.read_text().replace("GRCh37\tGRCh38", "GRCh38\tother")
    path.write_text(shifted)
    with pytest.raises(InputError, match="is it another genome build"):
        read_measured(str(path), genome, Interval("c", 100, 140), None, 10)


def test_scores_that_are_the_effects_correlate_with_them(model: LanguageModel, genome: Genome) -> None:
    result = mutagenesis(model, "c:101-130", genome, window=32)
    twice = dnasm.tasks.mutagenesis_table.Mutagenesis(**(vars(result) | {"measured": 2 * result.changes + 1}))
    by_name = {found.name: found for found in agreements(twice)}
    assert list(by_name) == ["model", "gradient x input", "GC change", "CpG change", "transversion"]
    assert by_name["model"].pearson.value == pytest.approx(1)
    assert by_name["model"].spearman.low == pytest.approx(1)
    assert by_name["model"].pearson.count == 90
    assert by_name["GC change"].pearson.value < 0.9


def test_real_measurements_lie_on_the_real_genome(shared: Path, tmp_path: Path) -> None:
    """HNF4A's element with its own letters, at its own coordinates of GRCh37 less a shift that the table shares."""
    import gzip

    folder = shared / "mpra_satmut" if (shared / "mpra_satmut").is_dir() else shared / "data" / "mpra_satmut"
    with gzip.open(folder / "element_reference_sequences.fa.gz", "rt") as file:
        records = dict(record.split("\n", 1) for record in file.read().split(">")[1:])
    (letters,) = ["".join(text.split()) for name, text in records.items() if name.startswith("HNF4A ")]
    first = 42_984_160
    table = tmp_path / "hnf4a.tsv"
    with gzip.open(folder / "mpra_satmut.tsv.gz", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    kept = [row for row in rows[1:] if row[0] == "HNF4A"]
    assert len(kept) == 977
    lines = [[*row[:2], str(int(row[2]) - first + 1), *row[3:]] for row in kept]
    table.write_text("\n".join("\t".join(row) for row in [rows[0], *lines]) + "\n")
    genome = Genome(write_fasta(tmp_path / "g.fa", **{"chr20": letters}))
    measured = read_measured(str(table), genome, Interval("chr20", 0, len(letters)), "HNF4A", 10)
    assert np.isfinite(measured).sum() == sum(float(row[6]) >= 10 for row in kept)
    strongest = max((row for row in kept if float(row[6]) >= 10), key=lambda row: abs(float(row[9])))
    place = int(strongest[2]) - first
    assert measured[place, "ACGT-".index(strongest[5])] == float(strongest[9])


@pytest.fixture(scope="module")
def command(model: LanguageModel, genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = save_model(model, tmp_path_factory.mktemp("model") / "m", {})
    words = ["--model", str(folder), "--genome", str(genome.path), "--device", "cpu", "--window", "32"]
    return ["mutagenesis", *words]


def test_the_command_writes_what_the_function_returns(
    model: LanguageModel, genome: Genome, command: list[str], effects: np.ndarray, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import pyarrow.parquet as pq

    measured = _write_measured(tmp_path / "m.tsv", effects, 100)
    words = ["--region", "c:101-130", "--out", str(tmp_path / "o.tsv"), "--picture", str(tmp_path / "o")]
    assert cli.main([*command, *words, "--measured", str(measured)]) == 0
    said = capsys.readouterr().err
    assert "model: Pearson " in said
    assert "GC change: Pearson " in said
    result = mutagenesis(model, "c:101-130", genome, window=32)
    header, *rows = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert len(rows) == 30 * 4
    for row in rows:
        cell = dict(zip(header, row, strict=True))
        i, column = int(cell["pos"]) - 101, "ACGT-".index(cell["alt"])
        assert cell["ref"] == LETTERS[100 + i]
        for name, value in (
            ("llr", result.changes[i, column]),
            ("llr_forward", result.forward[i, column]),
            ("llr_reverse", result.reverse[i, column]),
            ("gradient_x_input", result.gradient_importance[i]),
            ("measured", effects[i, column]),
        ):
            assert float(cell[name]) == pytest.approx(value, rel=1e-7)
        assert (cell["gradient_llr"] == "") == (cell["alt"] == "-")
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "o.svg").read_text()
    record = json.loads((tmp_path / "o.tsv.run.json").read_text())
    assert len(record["counts"]["measured"]) == 5
    assert cli.main([*command, "--region", "c:101-130", "--out", str(tmp_path / "o.parquet"), "--quiet"]) == 0
    table = pq.read_table(tmp_path / "o.parquet")
    assert table["llr"].to_pylist() == pytest.approx([float(row[4]) for row in rows], rel=1e-7)
    assert cli.main([*command, "--region", "c:101-103", "--out", "-", "--quiet", "--no-gradient"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 * 4


def test_the_command_takes_a_model_of_masked_bases(
    genome: Genome, effects: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(small_model(max_length=64, bidirectional=True), tmp_path / "m", {})
    words = ["mutagenesis", "--model", str(folder), "--genome", str(genome.path), "--device", "cpu", "--window", "32"]
    measured = ["--measured", str(_write_measured(tmp_path / "m.tsv", effects, 100))]
    out = ["--region", "c:101-110", "--out", str(tmp_path / "o.tsv"), "--picture", str(tmp_path / "o")]
    assert cli.main([*words, *out, *measured]) == 0
    said = capsys.readouterr().err
    assert "each base is masked in turn; deletions and gradient x input are empty" in said
    assert "model: Pearson" in said
    assert "gradient x input: Pearson" not in said
    header, *rows = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert len(rows) == 30
    assert {row[header.index("gradient_llr")] for row in rows} == {""}
    assert (tmp_path / "o.png").is_file()


def test_what_cannot_be_done_is_said_first(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "o.tsv")]
    for words, message in (
        (["--region", "c:1-400"], "leaves the contig"),
        (["--region", "c:206"], "are N"),
        (["--region", command[4]], "g.fa is a file; name one place"),
        (["--region", "c", "--out", str(tmp_path / "o.csv")], "the suffix tells no format"),
        (["--region", "c:1-9", "--measured", str(tmp_path / "none.tsv")], "none.tsv"),
    ):
        assert cli.main([*command, *out, *words]) in (2, 65)
        assert message in capsys.readouterr().err
    assert cli.main([*command, *out, "--region", "c", "--dry-run"]) == 0
    assert "300 bases of c in windows of 32 on cpu" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    words = [*command, *out, "--region", "c:1-40", "--dtype", "bfloat16"]
    assert cli.main([*words, "--strict"]) == 2
    assert "leave --strict out" in capsys.readouterr().err
