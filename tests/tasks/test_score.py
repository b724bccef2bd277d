"""Scores of variants: known ratios, symmetries, statuses, and files in and out."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
from numpy.testing import assert_array_equal

from dnasm.config import ScoreConfig
from dnasm.errors import ConfigError, InputError, OutputError, ReferenceMismatch
from dnasm.genome import Genome, Variant
from dnasm.models.checkpoint import load, save_model
from dnasm.tasks import score, window_likelihoods
from dnasm.tasks.likelihood import log_likelihood
from dnasm.tasks.score import score_variants
from dnasm.tasks.score_table import COLUMNS, ScoreTable
from dnasm.tasks.variant_input import read_alleles
from dnasm.tasks.variant_scorer import VariantScorer, pick_window

from .scoring import (
    PROBABILITIES,
    Composition,
    Doublets,
    mirror_variant,
    random_sequence,
    random_variants,
    reverse_complement,
    small_model,
    write_fasta,
)

SEQUENCE = random_sequence(900)
SNV = f"c:450:{SEQUENCE[449]}:{'A' if SEQUENCE[449] != 'A' else 'C'}"


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    return Genome(write_fasta(path, c=SEQUENCE, short="ACGTTGCA", one="A", dirty="ACNNNNNNRGTACGTA", last="GAGAC"))


def _log_ratio(ref: str, alt: str) -> float:
    return math.log(PROBABILITIES[alt]) - math.log(PROBABILITIES[ref])


def test_a_model_with_known_ratios_gives_exactly_those(genome: Genome) -> None:
    _, _, ref, alt = SNV.split(":")
    table = score_variants(Composition(), [SNV], genome, window=64)
    forward, reverse = _log_ratio(ref, alt), _log_ratio(reverse_complement(ref), reverse_complement(alt))
    np.testing.assert_allclose(table.llr_forward, forward, atol=1e-6)
    np.testing.assert_allclose(table.llr_reverse, reverse, atol=1e-6)
    np.testing.assert_array_equal(table.llr, (table.llr_forward + table.llr_reverse) / 2)


def test_a_base_is_judged_with_both_its_neighbours(genome: Genome) -> None:
    """In ACGTTGCA, T to G at position 4 makes a doublet before it and breaks the one after it: no change at all."""
    table = score_variants(Doublets(), ["short:4:T:G", "short:4:T:A"], genome)
    np.testing.assert_allclose(table.llr_forward, [0.0, math.log(0.1 / 0.7)], atol=1e-6)


def test_an_insertion_pays_for_its_bases_and_the_far_flank_that_leaves(genome: Genome) -> None:
    start = 449
    table = score_variants(Composition(), [f"c:450:{SEQUENCE[start]}:{SEQUENCE[start]}AAAA"], genome, window=64)
    gone = SEQUENCE[start + 29 : start + 33]  # the window has its first changed base at index 32
    expected = 4 * math.log(0.4) - sum(math.log(PROBABILITIES[base]) for base in gone)
    np.testing.assert_allclose(table.llr_forward, expected, atol=1e-5)


def test_n_is_never_scored(genome: Genome) -> None:
    """The window of dirty:12 holds a run of N and an R; only the changed base differs, so the ratio is its own."""
    table = score_variants(Composition(), ["dirty:12:A:G"], genome)
    np.testing.assert_allclose(table.llr_forward, _log_ratio("A", "G"), atol=1e-6)


@pytest.mark.parametrize("family", ["hyena", "h3", "attention"])
def test_scores_do_not_depend_on_batch_size_or_order(genome: Genome, family: str) -> None:
    model = small_model(family)
    variants = random_variants("c", SEQUENCE, 20)
    tables = [score_variants(model, variants, genome, window=64, batch_size=size) for size in (1, 7, 64, "auto")]
    for table in tables[1:]:
        for name in ("llr", "llr_forward", "llr_reverse"):
            assert_array_equal(getattr(table, name), getattr(tables[0], name))
    shuffled = score_variants(model, variants[::-1], genome, window=64, batch_size=7)
    assert_array_equal(shuffled.llr[::-1], tables[0].llr)
    assert np.abs(tables[0].llr).min() > 0.0  # or the test could not fail


def test_a_larger_batch_takes_fewer_forward_calls(genome: Genome) -> None:
    calls = []
    for size in (1, 8, 64):
        model = Composition()
        score_variants(model, random_variants("c", SEQUENCE, 40), genome, window=64, batch_size=size)
        calls.append(model.calls)
    assert calls[0] > 6 * calls[1] > 6 * calls[2]


@pytest.mark.parametrize("grid", [1, 64])
def test_calls_of_a_model_that_goes_on_from_a_beginning_fall_too(
    genome: Genome, grid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_likelihoods, "_LEAST_PREFIX", 32)
    calls, tables = [], []
    for size in (1, 8, 64):
        scorer = VariantScorer(small_model(), genome, window=256, grid=grid, batch_size=size)
        tables.append(ScoreTable.concatenate(scorer.score(read_alleles(random_variants("c", SEQUENCE, 40)))))
        calls.append(scorer.runner.calls)
    assert calls[0] > 3 * calls[1] > 3 * calls[2]
    assert_array_equal(tables[0].llr, tables[1].llr)
    assert_array_equal(tables[0].llr, tables[2].llr)


@pytest.mark.parametrize("family", ["hyena", "attention", "multihybrid"])
def test_sharing_beginnings_changes_no_score(genome: Genome, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows a variant, each read whole: the plain loop."""
    monkeypatch.setattr(window_likelihoods, "_LEAST_PREFIX", 32)
    model, variants = small_model(family), random_variants("c", SEQUENCE, 30)
    for grid in (1, 64):
        table = score_variants(model, variants, genome, window=256, grid=grid)
        scorer = VariantScorer(model, genome, window=256, grid=grid)
        for allele, forward, reverse in zip(read_alleles(variants), table.llr_forward, table.llr_reverse, strict=True):
            windows = scorer.cut(allele)
            for strand, value in (("forward", forward), ("reverse", reverse)):
                pair = windows[strand]
                reference, alternate = log_likelihood(model, [pair.reference, pair.alternate])
                assert abs(alternate - reference - value) < 1e-4


def test_left_aligned_spellings_of_one_change_have_one_score(tmp_path: Path) -> None:
    letters = random_sequence(200) + "CAGCAGCAGCAG" + random_sequence(200, 1)
    genome = Genome(write_fasta(tmp_path / "g.fa", c=letters))
    spellings = [f"c:{pos}:{letters[pos - 1 : pos + 3]}:{letters[pos - 1]}" for pos in range(201, 210)]
    spellings.append(f"c:200:{letters[199:212]}:{letters[199:209]}")
    apart = score_variants(small_model(), spellings, genome, window=64)
    one = score_variants(small_model(), spellings, genome, window=64, left_align=True)
    assert len(set(apart.llr)) > 1
    assert len(set(one.llr)) == len(set(one.llr_reverse)) == 1
    assert one.pos.tolist() == apart.pos.tolist()  # rows stay as they came


def test_a_grid_shares_reference_windows(genome: Genome) -> None:
    variants = [f"c:{pos}:{SEQUENCE[pos - 1]}:{'A' if SEQUENCE[pos - 1] != 'A' else 'C'}" for pos in range(401, 417)]
    calls = []
    for grid in (1, 16):
        model = Composition()
        table = score_variants(model, variants, genome, window=64, grid=grid, strands="forward", batch_size=1)
        calls.append(model.calls)
        np.testing.assert_allclose(
            table.llr, [_log_ratio(ref, alt) for ref, alt in zip(table.ref, table.alt, strict=True)], atol=1e-6
        )
    assert calls[0] == 32
    assert calls[1] in (17, 18)  # the 16 neighbours share one or two reference windows
    with pytest.raises(ConfigError, match="quarter"):
        score_variants(Composition(), variants, genome, window=64, grid=17)


def test_equal_windows_are_read_once(genome: Genome) -> None:
    ref = SEQUENCE[449]
    model = Composition()
    score_variants(model, [f"c:450:{ref}:{alt}" for alt in "ACGT" if alt != ref], genome, window=64, batch_size=1)
    assert model.calls == 2 * (1 + 3)


def test_scoring_back_from_the_edited_genome_gives_the_negative(genome: Genome, tmp_path: Path) -> None:
    contig, pos, ref, alt = SNV.split(":")
    edited = SEQUENCE[:449] + alt + SEQUENCE[450:]
    there = score_variants(small_model(), [SNV], genome, window=128)
    back = score_variants(
        small_model(), [f"{contig}:{pos}:{alt}:{ref}"], write_fasta(tmp_path / "e.fa", c=edited), window=128
    )
    for name in ("llr", "llr_forward", "llr_reverse"):
        assert_array_equal(getattr(there, name), -getattr(back, name))


def test_the_reverse_complemented_genome_swaps_the_strands(genome: Genome, tmp_path: Path) -> None:
    variants = [*random_variants("c", SEQUENCE, 30), f"c:1:{SEQUENCE[0]}:{'A' if SEQUENCE[0] != 'A' else 'G'}"]
    mirrored = [mirror_variant(text, len(SEQUENCE)) for text in variants]
    there = score_variants(small_model(), variants, genome, window=100)
    back = score_variants(
        small_model(), mirrored, write_fasta(tmp_path / "r.fa", c=reverse_complement(SEQUENCE)), window=100
    )
    assert_array_equal(there.llr_forward, back.llr_reverse)
    assert_array_equal(there.llr_reverse, back.llr_forward)
    assert_array_equal(there.llr, back.llr)
    assert np.abs(there.llr_forward - there.llr_reverse).min() > 0.0


@pytest.mark.parametrize(("strands", "filled"), [("forward", "llr_forward"), ("reverse", "llr_reverse")])
def test_one_strand_alone(genome: Genome, strands: str, filled: str) -> None:
    both = score_variants(small_model(), [SNV], genome, window=64)
    one = score_variants(small_model(), [SNV], genome, window=64, strands=strands)  # type: ignore[arg-type]
    assert_array_equal(one.llr, getattr(both, filled))
    other = {"llr_forward": "llr_reverse", "llr_reverse": "llr_forward"}[filled]
    assert np.isnan(getattr(one, other)).all()


def test_a_model_in_training_mode_is_scored_without_dropout(genome: Genome) -> None:
    model = small_model()
    expected = score_variants(model, [SNV], genome, window=64)
    model.train()
    assert_array_equal(score_variants(model, [SNV], genome, window=64).llr, expected.llr)
    assert model.training


@pytest.mark.parametrize(
    ("variant", "status", "words"),
    [
        ("c:0:A:C", "out_of_range", "1-900"),
        ("c:901:A:C", "out_of_range", "1-900"),
        (f"c:900:{SEQUENCE[899]}A:C", "out_of_range", "900-901"),
        ("nowhere:5:A:C", "unknown_contig", "nowhere"),
        ("short:1:C:A", "ref_mismatch", "genome has A"),
        ("dirty:3:A:C", "ref_mismatch", "genome has N"),
        ("short:1:A:<DEL>", "unsupported", "symbolic"),
        ("short:1:A:A[c:7[", "unsupported", "breakend"),
        ("short:1:A:*", "unsupported", "deletion"),
        ("short:1:A:.", "unsupported", "no ALT"),
        ("short:1:A:R", "unsupported", "not made of"),
        ("dirty:9:R:A", "unsupported", "REF R"),
        ("short:1:A:a", "unsupported", "the same"),
        ("one:1:A:C", "unsupported", "single base"),
        (f"c:450:{SEQUENCE[449]}:{'A' * 100_000}", "unsupported", "100,000 bases"),
        ("short:1:A:C", "ok", "begins with it on the forward"),
        ("short:8:A:C", "ok", "begins with it on the reverse"),
        ("short:4:t:g", "ok", ""),
    ],
)
def test_every_allele_gets_a_row_with_a_reason(genome: Genome, variant: str, status: str, words: str) -> None:
    table = score_variants(Composition(), [SNV, variant], genome, window=64, check_ref="skip")
    assert len(table) == 2
    assert table.status.tolist() == ["ok", status]
    assert words in table.reason[1]
    assert np.isfinite(table.llr[1]) == (status == "ok")
    contig, pos, ref, alt = variant.split(":", 3)
    assert [table.chrom[1], table.pos[1], table.ref[1], table.alt[1]] == [contig, int(pos), ref, alt]


def test_a_mismatch_stops_with_its_place_and_both_bases(genome: Genome) -> None:
    with pytest.raises(ReferenceMismatch, match=r"short:1:C:A: REF is C, the genome has A"):
        score_variants(Composition(), [SNV, "short:1:C:A"], genome, window=64)


def test_warn_names_a_mismatch_and_skip_does_not(genome: Genome, capsys: pytest.CaptureFixture[str]) -> None:
    score_variants(Composition(), [SNV, "short:1:C:A"], genome, window=64, check_ref="skip")
    assert "short:1" not in capsys.readouterr().err
    score_variants(Composition(), [SNV, "short:1:C:A"], genome, window=64, check_ref="warn")
    assert "short:1:C:A: REF is C, the genome has A" in capsys.readouterr().err


def test_another_build_is_noticed_within_the_first_thousand(genome: Genome) -> None:
    wrong = [f"c:{i}:{'A' if SEQUENCE[i - 1] != 'A' else 'C'}:G" for i in range(1, 102)]
    right = [f"c:{i}:{SEQUENCE[i - 1]}:{'A' if SEQUENCE[i - 1] != 'A' else 'C'}" for i in range(102, 400)]
    with pytest.raises(ReferenceMismatch, match="101 of the first 399 REFs disagree"):
        score_variants(Composition(), right + wrong, genome, window=8, check_ref="skip", batch_size=64)
    table = score_variants(Composition(), right + wrong[:100], genome, window=8, check_ref="skip", batch_size=64)
    assert table.counts() == {"ok": 298, "ref_mismatch": 100}


def test_contig_names_match_with_and_without_chr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_fasta(tmp_path / "g.fa", chr1="ACGTACGT", chrM="ACGTACGT", X="ACGTACGT")
    capsys.readouterr()
    table = score_variants(Composition(), ["1:4:T:G", "MT:4:T:G", "chrX:4:T:G", "1:5:A:G"], path)
    assert set(table.status) == {"ok"}
    assert table.chrom.tolist() == ["1", "MT", "chrX", "1"]  # as the input names them
    assert capsys.readouterr().err.count("without chr") == 1
    with pytest.raises(InputError, match="both mean"):
        score_variants(Composition(), ["M:4:T:G", "MT:4:T:G"], path)


def test_no_known_contig_at_all_is_an_error(genome: Genome) -> None:
    with pytest.raises(InputError, match=r"none of the contigs.*its own are c, short"):
        score_variants(Composition(), ["x:4:T:G", "y:4:T:G"], genome)


def test_variants_come_as_objects_texts_or_files(genome: Genome, tmp_path: Path) -> None:
    contig, pos, ref, alt = SNV.split(":")
    (tmp_path / "v.tsv").write_text(f"id\tALT\t#CHROM\tpos\tREF\nrs1\t{alt}\t{contig}\t{pos}\t{ref}\n")
    (tmp_path / "v.csv").write_text(f"chrom,pos,ref,alt\n{contig},{pos},{ref},{alt}\n")
    given = [[Variant(contig, int(pos), ref, alt)], [SNV], SNV, tmp_path / "v.tsv", str(tmp_path / "v.csv")]
    values = [score_variants(Doublets(), variants, genome, window=64).llr.tolist() for variants in given]
    assert all(value == values[0] for value in values)


@pytest.mark.parametrize("window", [1, 300])
def test_a_window_that_the_model_cannot_take_is_refused(genome: Genome, window: int) -> None:
    with pytest.raises(ConfigError, match="at most 256"):
        score_variants(small_model(), [SNV], genome, window=window)


def test_the_window_is_what_the_model_was_built_for() -> None:
    model = small_model()
    assert pick_window(model, None) == 256
    model.config = replace(model.config, suffix_separator=True)
    assert pick_window(model, None) == 254
    assert pick_window(small_model("h3", None), None) == 8192


def test_a_batch_of_none_is_refused(genome: Genome) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        score_variants(Composition(), [SNV], genome, batch_size=0)


def test_the_table_turns_into_pandas_and_arrow(genome: Genome) -> None:
    table = score_variants(Composition(), [SNV, "short:1:A:*"], genome, window=64)
    frame, arrow = table.to_pandas(), table.to_arrow()
    assert tuple(frame.columns) == tuple(arrow.column_names) == COLUMNS
    assert frame.llr.isna().tolist() == [False, True]
    assert arrow["llr"].to_pylist()[1] is None
    assert arrow["ref_match"].to_pylist() == [True, True]


def test_no_variants_make_an_empty_table(genome: Genome) -> None:
    assert len(score_variants(Composition(), [], genome)) == 0
    assert len(ScoreTable.concatenate([])) == 0


# The command.


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small_model(), tmp_path_factory.mktemp("model") / "m", {"seed": 1})


def _vcf(path: Path, *records: str, contig: str = "##contig=<ID=c,length=900>") -> Path:
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    path.write_text("\n".join(["##fileformat=VCFv4.2", contig, columns, *records]) + "\n")
    return path


def _config(genome: Genome, model_folder: Path, variants: object, out: object, **more: object) -> ScoreConfig:
    return ScoreConfig(
        model=str(model_folder), genome=str(genome.path), variants=str(variants), out=str(out), window=64, **more
    )  # type: ignore[arg-type]


def _record(start: int, alts: str, info: str = ".") -> str:
    return f"c\t{start + 1}\t.\t{SEQUENCE[start]}\t{alts}\t.\t.\t{info}"


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_the_command_writes_what_the_function_returns(
    genome: Genome, model_folder: Path, tmp_path: Path, suffix: str
) -> None:
    variants = random_variants("c", SEQUENCE, 20)
    rows = ["\t".join(text.split(":")) for text in variants]
    (tmp_path / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt", *rows]) + "\n")
    score.run(_config(genome, model_folder, tmp_path / "v.tsv", tmp_path / f"out.{suffix}"))
    expected = score_variants(load(model_folder, "cpu"), variants, genome, window=64)
    if suffix == "parquet":
        import pyarrow.parquet as pq

        assert pq.read_table(tmp_path / "out.parquet").to_pydict() == expected.to_arrow().to_pydict()
    else:
        lines = (tmp_path / "out.tsv").read_text().splitlines()
        assert lines[0].split("\t") == list(COLUMNS)
        assert [float(line.split("\t")[4]) for line in lines[1:]] == [float(f"{x:.9g}") for x in expected.llr]
    assert (tmp_path / f"out.{suffix}.run.json").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_annotated_vcf_has_a_value_for_each_alt(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    alts = ",".join(base for base in "ACGT" if base != SEQUENCE[100])
    vcf = _vcf(tmp_path / "v.vcf", _record(100, alts, "X=1;Y"), _record(200, "."), _record(300, "*"))
    score.run(_config(genome, model_folder, vcf, tmp_path / "out.vcf.gz"))
    expected = score_variants(load(model_folder, "cpu"), vcf, genome, window=64)
    assert len(expected) == 5
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as reader:
        first, second, third = list(reader)
    np.testing.assert_allclose(first.info["DNASM_LLR"], expected.llr[:3], rtol=1e-5)
    np.testing.assert_allclose(first.info["DNASM_LLR_REVERSE"], expected.llr_reverse[:3], rtol=1e-5)
    assert first.info["DNASM_STATUS"] == ("ok", "ok", "ok")
    assert "DNASM_LLR" not in second.info
    assert third.info["DNASM_STATUS"] == ("unsupported",)
    assert third.info["DNASM_LLR"] == (None,)
    assert list(pysam.TabixFile(str(tmp_path / "out.vcf.gz")).fetch("c", 99, 101))


def test_bcftools_splits_the_annotated_vcf_and_finds_by_its_index(
    genome: Genome, model_folder: Path, tmp_path: Path
) -> None:
    """bcftools itself, as pysam carries it: `norm` gives each ALT its own value, `query` goes by region."""
    alts = [",".join(base for base in "ACGT" if base != SEQUENCE[i]) for i in (100, 400)]
    vcf, out = _vcf(tmp_path / "v.vcf", _record(100, alts[0], "X=1"), _record(400, alts[1])), tmp_path / "out.vcf.gz"
    score.run(_config(genome, model_folder, vcf, out))
    expected = score_variants(load(model_folder, "cpu"), vcf, genome, window=64)
    form = r"%POS\t%ALT\t%INFO/DNASM_LLR\t%INFO/DNASM_STATUS\n"
    (tmp_path / "split.vcf").write_text(pysam.bcftools.norm("-m-", str(out)))
    lines = [line.split("\t") for line in pysam.bcftools.query("-f", form, str(tmp_path / "split.vcf")).splitlines()]
    assert [(int(pos), alt, status) for pos, alt, _, status in lines] == [
        (pos, alt, "ok") for pos, listed in zip((101, 401), alts, strict=True) for alt in listed.split(",")
    ]
    np.testing.assert_allclose([float(value) for _, _, value, _ in lines], expected.llr, rtol=1e-5)
    (there,) = pysam.bcftools.query("-f", form, "-r", "c:350-450", str(out)).splitlines()
    assert there.startswith("401\t" + alts[1])


def test_every_original_field_of_the_shipped_vcf_is_kept(root: Path, tmp_path: Path) -> None:
    source, fasta = (str(root / "data" / f"human_chr20_sample.{suffix}") for suffix in ("vcf.gz", "fa.gz"))
    folder = save_model(small_model(max_length=8), tmp_path / "m", {})
    command = [sys.executable, "-m", "dnasm", "score", "--model", str(folder), "--genome", fasta, "--variants", source]
    subprocess.run([*command, "--out", "out.vcf.gz", "--batch-size", "1024", "--quiet"], cwd=tmp_path, check=True)
    with pysam.VariantFile(source) as before, pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as after:
        pairs = list(zip(before, after, strict=True))
        assert len(pairs) == 4109
        for old, new in pairs:
            assert str(new).startswith(str(old).rstrip("\n") + ";DNASM_LLR=")
            assert len(new.info["DNASM_LLR"]) == len(old.alts or ())
        assert str(after.header).startswith(str(before.header).split("#CHROM")[0])


def test_a_table_can_become_a_vcf(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    score.run(_config(genome, model_folder, SNV, tmp_path / "out.vcf"))
    with pysam.VariantFile(str(tmp_path / "out.vcf")) as reader:
        (record,) = reader
    assert f"{record.contig}:{record.pos}:{record.ref}:{record.alts[0]}" == SNV
    assert len(record.info["DNASM_LLR"]) == 1


def test_bcf_reads_as_its_vcf(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    vcf = _vcf(tmp_path / "v.vcf", *(_record(i, "A" if SEQUENCE[i] != "A" else "C") for i in (100, 200)))
    with (
        pysam.VariantFile(str(vcf)) as reader,
        pysam.VariantFile(str(tmp_path / "v.bcf"), "wb", header=reader.header) as w,
    ):
        for record in reader:
            w.write(record)
    texts = []
    for name in ("v.vcf", "v.bcf"):
        score.run(_config(genome, model_folder, tmp_path / name, tmp_path / f"{name}.tsv", quiet=True))
        texts.append((tmp_path / f"{name}.tsv").read_text())
    assert texts[0] == texts[1]


def test_outputs_are_not_replaced_unless_forced(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        score.run(_config(genome, model_folder, SNV, out))
    assert out.read_text() == "mine"
    score.run(_config(genome, model_folder, SNV, out, force=True))
    assert out.read_text().startswith("chrom\t")


def test_an_input_is_never_replaced(genome: Genome, model_folder: Path, tmp_path: Path) -> None:
    vcf = _vcf(tmp_path / "v.vcf", _record(100, "A"))
    with pytest.raises(ConfigError, match="is an input"):
        score.run(_config(genome, model_folder, vcf, vcf, force=True))


def test_an_unknown_suffix_is_refused_before_anything_is_read(
    genome: Genome, model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="tells no format"):
        score.run(_config(genome, tmp_path / "no model", SNV, tmp_path / "out.xlsx"))


def test_a_dry_run_checks_and_writes_nothing(
    genome: Genome, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score.run(_config(genome, model_folder, SNV, tmp_path / "out.tsv", dry_run=True))
    assert "1 allele: 1 ok" in capsys.readouterr().out
    with pytest.raises(ReferenceMismatch):
        score.run(_config(genome, model_folder, "short:1:C:A", tmp_path / "out.tsv", dry_run=True))
    assert list(tmp_path.iterdir()) == []


def test_a_header_of_another_build_is_pointed_out(
    genome: Genome, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = _vcf(tmp_path / "v.vcf", _record(100, "."), contig="##contig=<ID=c,length=1000>")
    score.run(_config(genome, model_folder, vcf, tmp_path / "out.tsv"))
    assert "c has 1,000 bases" in capsys.readouterr().err


def test_another_name_of_a_contig_is_said_once_even_if_precision_is_tried(
    genome: Genome, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(genome, model_folder, f"chr{SNV}", tmp_path / "out.tsv", dtype="bfloat16", device="cpu")
    score.run(config)
    said = capsys.readouterr().err
    assert said.count("without chr") == 1
    assert "in bfloat16" in said
