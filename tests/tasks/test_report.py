"""The report: what it shows of a run and its scores, and that nobody's names become markup."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest

from dnasm.config import ReportConfig
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.tasks import report, score
from dnasm.tasks.report_inputs import read_scores
from dnasm.tasks.report_scores import find_genome
from dnasm.tasks.score_methods import Method

from .scoring import random_sequence, random_variants, small_model, write_fasta

EVIL = "<script>alert(1)</script>"
COLUMNS = "chrom\tpos\tref\talt\tllr\tllr_forward\tllr_reverse\tref_match\tstatus\treason\n"


class _Elements(HTMLParser):
    """Collects tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " "


def _run_folder(folder: Path, *, state: str = "done", model_bits: float = 1.9, name: str = "demo") -> Path:
    """Write what `pretrain` writes."""
    run = folder / name
    run.mkdir()
    record = {
        "argv": ["dnasm", "pretrain", "--out", name],
        "folder": str(folder),
        "started": "2026-01-01T10:00:00+00:00",
        "versions": {"dnasm": "0.1.0", "torch": "2.13.0"},
        "git": {"commit": "abc123", "changed": False},
        "seed": 3,
        "inputs": [{"path": f"{EVIL}.fa", "bytes": 9, "sha256": "0123456789abcdef" * 4}],
        "counts": {"state": state, "parameters": 12345, "steps": 90, "tokens": 90_000, "training_seconds": 75.0,
                   "best_step": 80},
        "config": {"out": name, "seed": 3, "force": False,
                   "model": {"family": "hyena", "num_layers": 2, "d_model": 64},
                   "data": {"window": 64, "genomes": [{"path": f"{EVIL}.fa", "weight": None}]}},
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(record))
    lines = ["step,epoch,seconds,tokens,lr,grad_norm,train_nats,train_bits_per_base,val_nats,val_bits_per_base"]
    for step in range(10, 100, 10):
        bits = 2 - step / 1000
        lines.append(f"{step},0,1.0,{step},0.001,1.0,{bits * math.log(2)},{bits},,")
        lines.append(f"{step},0,1.0,{step},,,,,{bits * math.log(2)},{bits}")
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    if state == "done":
        places = [f"{i},{i + 1},100,1.3,{1.95 - i / 1000}" for i in range(1, 64)]
        (run / "position_loss.csv").write_text("\n".join(["start,end,targets,nats,bits_per_base", *places]) + "\n")
        markov = [
            {"genome": genome, "order": order, "strands": strands, "bits_per_base": 1.96 - order / 100, "targets": 6300,
             "weight": 6300.0, "counted": 400_000}
            for genome in ("all", "g") for order in range(3) for strands in ("one", "both")
        ]  # fmt: skip
        model = [{"genome": "all", "step": 80, "bits_per_base": model_bits, "targets": 6300}]
        (run / "baselines.json").write_text(json.dumps({"model": model, "markov": markov}))
    return run


def _make(folder: Path, run: Path, **settings: Any) -> _Elements:
    report.run(ReportConfig(run=str(run), out=str(folder / "page.html"), quiet=True, **settings))
    return _Elements((folder / "page.html").read_text())


def test_a_run_is_shown_with_its_numbers(tmp_path: Path) -> None:
    page = _make(tmp_path, _run_folder(tmp_path))
    for shown in ("1.9000", "1.9400", "0.0400", "bits below", "order 2, one strand", "6,300", "400,000", "12,345",
                  "1 min 15 s", "2.13.0", "abc123", "data", "genomes[0].path"):  # fmt: skip
        assert shown in page.text, shown
    assert [tag for tag, _ in page.tags].count("svg") == 2
    assert "Keep in mind" not in page.text


@pytest.mark.parametrize("setting", ["bidirectional", "equivariant"])
def test_a_model_that_sees_both_sides_has_not_read_more_on_the_right(tmp_path: Path, setting: str) -> None:
    run = _run_folder(tmp_path)
    assert "Further right the model has read more" in _make(tmp_path, run).text
    record = json.loads((run / "run.json").read_text())
    record["config"]["model"][setting] = True
    (run / "run.json").write_text(json.dumps(record))
    page = _make(tmp_path, run, force=True)
    assert "Further right" not in page.text
    assert "place in the window (logarithmic)" in page.text


def test_a_page_reaches_for_nothing_outside_itself(tmp_path: Path) -> None:
    page = _make(tmp_path, _run_folder(tmp_path))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            assert name not in ("src", "srcset", "action")
            if name in ("href", "xlink:href"):
                assert value is not None
                assert value.startswith("#")
    assert any("default-src 'none'" in str(attributes.get("content")) for tag, attributes in page.tags if tag == "meta")


def test_hostile_names_are_shown_as_they_are_written(tmp_path: Path) -> None:
    names = [EVIL, '"><img src=x onerror=alert(1)>', "a&b", "{{ 7 * 7 }}"]
    rows = [
        f"{name}\t{i + 1}\tA\t{'<b>' if i else 'C'}\t{i - 1.5}\t{i}\t{i}\ttrue\tok\t{EVIL}"
        for i, name in enumerate(names)
    ]
    (tmp_path / "s.tsv").write_text(COLUMNS + "\n".join([*rows, f"c\t1\tA\tC\t.\t.\t.\tfalse\t{EVIL}\t"]) + "\n")
    page = _make(tmp_path, _run_folder(tmp_path, name="a'<i>b"), scores=str(tmp_path / "s.tsv"))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "i b"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for name in names:
        assert name in page.text
    assert "a'<i>b" in page.text
    assert f"{EVIL}.fa" in page.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"model_bits": 1.97}, "not better than the best Markov model"), ({"state": "training"}, "has not ended")],
)
def test_a_run_with_a_flaw_is_shown_with_a_warning(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    page = _make(tmp_path, _run_folder(tmp_path, **settings))
    assert "Keep in mind" in page.text
    assert words in page.text


@pytest.mark.parametrize(
    ("suffix", "method", "figures"),
    [("tsv", "llr", 4), ("vcf.gz", "masked_llr", 4), ("parquet", "embedding_distance", 4), ("vcf.gz", "llr", 4)],
)
def test_scores_read_back_from_every_format(tmp_path: Path, suffix: str, method: str, figures: int) -> None:
    from dnasm.config import ScoreConfig
    from dnasm.models.checkpoint import save_model
    from dnasm.tasks.score import score_variants

    letters = random_sequence(300)
    genome = write_fasta(tmp_path / "g.fa", c=letters)
    model = small_model(bidirectional=method == "masked_llr")
    variants = [*random_variants("c", letters, 12), "c:5:" + letters[4] + ":*"]
    (tmp_path / "v.tsv").write_text(
        "chrom\tpos\tref\talt\n" + "\n".join("\t".join(v.split(":")) for v in variants) + "\n"
    )
    out = str(tmp_path / f"s.{suffix}")
    score.run(ScoreConfig(
        model=str(save_model(model, tmp_path / "m", {})), genome=str(genome), variants=str(tmp_path / "v.tsv"), out=out,
        window=64, quiet=True, method=method,
    ))  # type: ignore[arg-type]  # fmt: skip
    expected = score_variants(model, variants, genome, window=64, method=method)  # type: ignore[arg-type]
    read = read_scores(out)
    assert list(read) == [method]
    rows = read[method]
    assert [(row.chrom, row.pos, row.ref, row.alt, row.status) for row in rows] == list(
        zip(expected.chrom, expected.pos, expected.ref, expected.alt, expected.status, strict=True)
    )
    for name, values in (("value", expected.llr), ("forward", expected.llr_forward), ("reverse", expected.llr_reverse)):
        assert [getattr(row, name) for row in rows] == pytest.approx(values.tolist(), rel=1e-5, nan_ok=True)
    found, why = find_genome(out, None)
    assert found is not None, why
    page = _make(tmp_path, _run_folder(tmp_path), scores=out)
    shown = (len(expected) - sum(expected.status != "ok")) // 2 * (1 if method == "embedding_distance" else 2)
    assert [tag for tag, _ in page.tags].count("del") == shown
    assert f"{sum(expected.status != 'ok')} unsupported" in page.text
    assert [tag for tag, _ in page.tags].count("svg") == figures + 1 + shown  # figures, letters, a logo for each
    assert ("Largest changes" in page.text) == (method == "embedding_distance")
    assert ("Least likely changes" in page.text) == (method != "embedding_distance")


def test_every_method_is_shown_and_other_columns_are_left_alone(tmp_path: Path) -> None:
    names = [f"{method}{strand}" for method in get_args(Method) for strand in ("", "_forward", "_reverse")]
    lines = ["\t".join(["clinvar", "chrom", "pos", "ref", "alt", *names, "status", "mine_forward"])]
    for i in range(20):
        lines.append(
            "\t".join(["benign", "c", str(i + 1), "A", "C", *[str(1 + i + k) for k in range(len(names))], "ok", "?"])
        )
    (tmp_path / "s.tsv").write_text("\n".join(lines) + "\n")
    table = read_scores(str(tmp_path / "s.tsv"))
    assert list(table) == list(get_args(Method))
    for number, rows in enumerate(table.values()):
        assert [(rows[4].value, rows[4].forward, rows[4].reverse)] == [(5 + 3 * number, 6 + 3 * number, 7 + 3 * number)]
    page = _make(tmp_path, _run_folder(tmp_path), scores=str(tmp_path / "s.tsv"))
    headings = [line for line in page.text.split("  ") if "Variant scores" in line]
    for title in ("Log-likelihood ratio", "Log-likelihood ratio, masked", "Pseudo-likelihood ratio",
                  "Mean log-likelihood ratio", "Divergence of the next base", "Distance of embeddings"):  # fmt: skip
        assert f"Variant scores: {title}" in page.text, headings
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert page.text.count("Largest changes") == 2
    assert page.text.count("Most favoured changes") == 4
    assert page.text.count("20 ok") == 6


def test_the_letters_around_a_variant_are_the_genomes(tmp_path: Path) -> None:
    letters = random_sequence(100)
    genome = write_fasta(tmp_path / "g.fa", c=letters)
    alt = "A" if letters[49] != "A" else "C"
    rows = [f"c\t50\t{letters[49]}\t{alt}\t-2\t-2\t-2\ttrue\tok\t", f"c\t1\t{letters[0]}\tN\t1\t1\t1\ttrue\tok\t"]
    (tmp_path / "s.tsv").write_text(COLUMNS + "\n".join(rows) + "\n")
    page = _make(tmp_path, _run_folder(tmp_path), scores=str(tmp_path / "s.tsv"), genome=str(genome))
    assert f"{letters[33:49]} {letters[49]} {alt} {letters[50:66]}" in page.text
    assert f"{letters[0]} N {letters[1:17]}" in page.text


def test_scores_without_a_genome_say_so(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text(COLUMNS + "c\t1\tA\tC\t-2\t.\t.\ttrue\tok\t\n" * 2)
    page = _make(tmp_path, _run_folder(tmp_path), scores=str(tmp_path / "s.tsv"))
    assert "give --genome" in page.text


def test_an_empty_score_table_is_shown_as_one(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text(COLUMNS)
    page = _make(tmp_path, _run_folder(tmp_path), scores=str(tmp_path / "s.tsv"))
    assert "of 0 alleles" in page.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.tsv", "chrom\tpos\n", "no column 'ref'"),
        ("s.tsv", COLUMNS + "c\t1\tA\n", "s.tsv:2: has 3 columns"),
        ("s.tsv", COLUMNS + "c\t1\tA\tC\tbig\t.\t.\ttrue\tok\t\n", "'big', not a number"),
        (
            "s.vcf",
            "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n",
            "no INFO/DNASM_LLR or another score",
        ),
        ("s.parquet", "no parquet", "cannot be read"),
    ],
)
def test_damaged_scores_are_refused_and_leave_nothing(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        _make(tmp_path, _run_folder(tmp_path), scores=str(tmp_path / name))
    assert not (tmp_path / "page.html").exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json"):
        _make(tmp_path, tmp_path)
    run = _run_folder(tmp_path)
    (run / "metrics.csv").write_text("step,train_bits_per_base\n1,many\n")
    with pytest.raises(InputError, match=r"metrics\.csv:2: train_bits_per_base is 'many'"):
        _make(tmp_path, run)
    (run / "run.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        _make(tmp_path, run)


def test_a_page_is_not_replaced_unless_forced(tmp_path: Path) -> None:
    run = _run_folder(tmp_path)
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        _make(tmp_path, run)
    assert "1.9000" in _make(tmp_path, run, force=True).text
    with pytest.raises(ConfigError, match="html"):
        report.run(ReportConfig(run=str(run), out=str(tmp_path / "page.pdf")))
