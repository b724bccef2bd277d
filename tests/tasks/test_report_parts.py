"""Labels, logos and tracks of a report: numbers that are known beforehand."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dnasm import cli
from dnasm.config import LikelihoodConfig, ReportConfig, ScoreConfig
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Genome, Interval
from dnasm.models.checkpoint import save_model
from dnasm.report.label_plots import precision_recall, roc
from dnasm.tasks import likelihood_tracks, report, score
from dnasm.tasks.forward_batches import BatchRunner
from dnasm.tasks.masked_bases import expected_in_region
from dnasm.tasks.report_inputs import Score
from dnasm.tasks.report_labels import label_block, read_labels
from dnasm.tasks.report_logos import draw_logo_of, expected_logos, information
from dnasm.tasks.report_tracks import track_figures

from .scoring import PROBABILITIES, Composition, random_sequence, small_model, write_fasta

COLUMNS = "chrom\tpos\tref\talt\tllr\tllr_forward\tllr_reverse\tref_match\tstatus\treason\n"


def _scores(llrs: list[float]) -> list[Score]:
    return [Score("chr1", i + 1, "A", "CGT"[i % 3], llr, llr, llr, "ok") for i, llr in enumerate(llrs)]


def _labels(path: Path, rows: list[tuple[str, int, str, str, str]], column: str = "label") -> Path:
    lines = ["\t".join(map(str, row)) for row in rows]
    path.write_text("\n".join([f"chrom\tpos\tref\talt\t{column}", *lines]) + "\n")
    return path


def test_a_score_that_knows_the_labels_has_an_area_of_one(tmp_path: Path) -> None:
    scores = _scores([*np.linspace(-2, -1, 20), *np.linspace(0, 1, 30), math.nan])
    rows = [
        ("1", s.pos, s.ref, s.alt.lower(), "LOF" if i < 20 else "INT" if i < 50 else "") for i, s in enumerate(scores)
    ]
    labels = read_labels(str(_labels(tmp_path / "l.tsv", rows, "class")), "class", ["LOF"])
    block = label_block({"llr": scores}, labels, "l.tsv")
    assert (block.positives, block.negatives) == (20, 30)
    model, gc, transversion = block.rows  # without a genome there are no neighbours, and no CpG
    assert (model.name, model.auroc, model.precision) == ("model, -llr", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    assert (gc.name, transversion.name) == ("GC change", "transversion")
    assert gc.auroc[1] < 0.5 < gc.auroc[2]
    assert len(block.figures) == 3
    turned = [replace(s, value=-s.value) for s in scores]
    assert label_block({"llr": turned}, labels, "l.tsv").rows[0].auroc == (0.0, 0.0, 0.0)
    both = label_block({"embedding_distance": turned, "llr_mean": turned}, labels, "l.tsv")
    assert [(row.name, row.auroc[0]) for row in both.rows if row.ours] == [
        ("model, embedding_distance", 1.0),
        ("model, -llr_mean", 0.0),
    ]
    assert (block.direction, both.direction) == (
        "A low score is taken to speak for a positive.",
        "A high score is taken to speak for a positive.",
    )


def test_labels_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "l.tsv"
    for rows, words in (
        ([("1", 1, "A", "C", "1"), ("1", 1, "A", "C", "0")], "two different labels"),
        ([("1", "x", "A", "C", "1")], r"l.tsv:2: no row"),
    ):
        with pytest.raises(InputError, match=words):
            read_labels(str(_labels(path, rows)), "label", ["1"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no column 'class'"):
        read_labels(str(_labels(path, [])), "class", ["1"])
    few = read_labels(str(_labels(path, [("1", i, "A", "CGT"[(i - 1) % 3], "1") for i in range(1, 9)])), "label", ["1"])
    with pytest.raises(InputError, match="8 positives and 0 negatives have a score"):
        label_block({"llr": _scores([0.0] * 9)}, few, "l.tsv")


def test_curves_step_over_ties_at_once() -> None:
    labels, scores = np.array([True, False, True, False]), np.array([3.0, 2.0, 2.0, 1.0])
    false, found = roc(labels, scores)
    assert (false.tolist(), found.tolist()) == ([0, 0, 0.5, 1], [0, 0.5, 1, 1])
    recall, precision = precision_recall(labels, scores)
    assert recall.tolist() == [0, 0.5, 1, 1]
    assert_allclose(precision, [1, 1, 2 / 3, 0.5])


def test_logos_show_both_strands_opinion(tmp_path: Path) -> None:
    genome = Genome(write_fasta(tmp_path / "g.fa", c=random_sequence(100)))
    (heights,) = expected_logos(Composition(), genome, [Interval("c", 50, 51)])
    assert heights.shape == (33, 4)
    p = np.array([PROBABILITIES[base] for base in "ACGT"])
    both = np.sqrt(p * p[::-1])
    assert_allclose(heights[10], information(np.log(both / both.sum())[None])[0], atol=1e-6)
    at_the_start, long = expected_logos(Composition(), genome, [Interval("c", 0, 1), Interval("c", 95, 99)])
    assert (len(at_the_start), len(long)) == (17, 21)
    assert information(np.log(np.full((1, 4), 0.25))).max() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("ref", "alt", "length"), [("A", "C", 1), ("AC", "A", 2), ("A", "ACGT", 1), ("ACGTACGT…(12)", "A", 12)]
)
def test_a_logos_columns_stand_over_their_letters(ref: str, alt: str, length: int) -> None:
    """One column a letter of `before REF ALT after`, in which nothing stands over ALT or an ellipsis."""
    place = Interval("c", 20, 20 + length)
    heights = np.zeros((16 + length + 16, 4))
    heights[:, 0] = 1.0
    drawn = draw_logo_of(place, heights, 1.0, ref, alt)
    columns = [round(float(x) // 8) for x in re.findall(r"translate\(([\d.]+) ", drawn)]
    spelled = min(length, 8)
    behind = 16 + len(ref) + len(alt)
    assert columns == [*range(16 + spelled), *range(behind, behind + 16)]
    assert f"--bases: {behind + 16}" in drawn
    assert f'x="128" y="0" width="{8 * spelled}"' in drawn


def test_logos_of_a_model_of_masked_bases(tmp_path: Path) -> None:
    letters = f"{random_sequence(40)}N{random_sequence(59)}"
    genome = Genome(write_fasta(tmp_path / "g.fa", c=letters))
    model = small_model(max_length=64, bidirectional=True)
    first, second = expected_logos(model, genome, [Interval("c", 50, 51), Interval("c", 2, 3)])
    assert (first.shape, second.shape) == ((33, 4), (19, 4))
    assert first[6].max() == pytest.approx(0, abs=1e-6)  # N, of which nothing is asked
    both = [expected_in_region(BatchRunner(model), genome, Interval("c", 2, 3), 64, s) for s in ("forward", "reverse")]
    assert_allclose(second[2:3], information((both[0] + both[1]) / 2), atol=1e-6)


def test_tracks_are_drawn_from_what_likelihood_writes(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", c=random_sequence(5000))
    model = save_model(small_model(), tmp_path / "m", {})
    for name in ("t.bedgraph", "t.bw"):
        (tmp_path / "r.bed").write_text("c\t100\t300\nc\t400\t500\nc\t3000\t3200\n")
        likelihood_tracks.run(LikelihoodConfig(
            model=str(model), genome=str(genome), regions=str(tmp_path / "r.bed"), out=str(tmp_path / name), quiet=True
        ))  # fmt: skip
        first, second = track_figures(str(tmp_path / name), 0)
        assert first.title == f"{name}: c:101-500"
        assert second.title == f"{name}: c:3,001-3,200"
        assert "over 300 bases" in first.caption
        assert re.search(r"<svg", first.svg)
    (tmp_path / "bad.bedgraph").write_text("c\t1\n")
    with pytest.raises(InputError, match=r"bad.bedgraph:1"):
        track_figures(str(tmp_path / "bad.bedgraph"), 0)
    (tmp_path / "none.bedgraph").write_text("track\n")
    with pytest.raises(InputError, match="no value to show"):
        track_figures(str(tmp_path / "none.bedgraph"), 0)
    with pytest.raises(ConfigError, match=r"must be .bedgraph"):
        track_figures("t.wig", 0)
    (tmp_path / "bad.bw").write_text("no")
    with pytest.raises(InputError, match="is no bigWig"):
        track_figures(str(tmp_path / "bad.bw"), 0)


def test_a_score_file_has_a_page_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = random_sequence(300)
    genome, model = write_fasta(tmp_path / "g.fa", c=letters), save_model(small_model(), tmp_path / "m", {})
    lines = [f"c\t{i}\t{letters[i - 1]}\t{'C' if letters[i - 1] != 'C' else 'T'}" for i in range(100, 140)]
    (tmp_path / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt", *lines]) + "\n")
    (tmp_path / "l.tsv").write_text(
        "\n".join(["chrom\tpos\tref\talt\tlabel", *(f"{x}\t{i % 2}" for i, x in enumerate(lines))]) + "\n"
    )
    scores = str(tmp_path / "s.tsv")
    score.run(ScoreConfig(
        model=str(model), genome=str(genome), variants=str(tmp_path / "v.tsv"), out=scores, window=64, quiet=True
    ))  # fmt: skip
    out = str(tmp_path / "p.html")
    report.run(ReportConfig(out=out, scores=scores, labels=str(tmp_path / "l.tsv"), quiet=True))
    text = Path(out).read_text()
    for words in ("Scores beside labels", "20 positives", "GC change", "what the model expects", "scored with"):
        assert words in text, words
    assert text.count('class="logo"') == 16
    assert "has not ended" not in text
    report.run(ReportConfig(out=out, scores=scores, logos=False, force=True, quiet=True))
    assert 'class="logo"' not in Path(out).read_text()
    labelled = str(tmp_path / "labelled.tsv")
    score.run(ScoreConfig(
        model=str(model), genome=str(genome), variants=str(tmp_path / "l.tsv"), out=labelled, window=64, labels="label",
        quiet=True,
    ))  # fmt: skip
    report.run(ReportConfig(out=out, scores=labelled, logos=False, force=True, quiet=True))
    text = Path(out).read_text()
    for words in ("Scores beside labels", "20 positives", "Markov log-ratio, order 8", "CpG change"):
        assert words in text, words
    Path(f"{labelled}.evaluation.json").write_text('{"values": {"label": ["x"]}}')
    with pytest.raises(InputError, match=r"evaluation.json: is no evaluation"):
        report.run(ReportConfig(out=out, scores=labelled, force=True, quiet=True))
    assert cli.main(["report", "--out", str(tmp_path / "q.html")]) == 2
    assert "give --run, --scores or --tracks" in capsys.readouterr().err
    assert cli.main(["report", "--out", str(tmp_path / "q.html"), "--run", "x", "--labels", "y"]) in (2, 65)
