"""Figures in docs/proof.md are those of the rows that it links, rounded."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

Rows = list[dict[str, Any]]
PAGE = (ROOT / "docs/proof.md").read_text()


def _rows(name: str) -> Rows:
    return [json.loads(line) for line in Path(ROOT / "docs/benchmarks" / name).read_text().splitlines()]


def _decode() -> Iterator[str]:
    for name, where in (("cpu-decode.jsonl", "CPU"), ("h200-decode.jsonl", "H200, one graph a token")):
        for model, rows in groupby(_rows(name), lambda row: row["model"]):
            times = " | ".join(f"{1000 * row['seconds_per_token']:.2f}" for row in rows)
            yield f"| {model}, {where} | {times} |"


def _long() -> Iterator[str]:
    for row in _rows("cpu-long.jsonl"):
        assert row["length"] == 10_000_000
        yield (
            f"| {row['peak_bytes'] / 1e6:.0f} MB | {row['peak_bytes_with_131072'] / 1e6:.0f} MB | "
            f"{row['one_shot_bytes'] / 1e9:.1f} GB | {row['likelihood_seconds']:.0f} s | {row['embed_seconds']:.0f} s |"
        )


def _plain_hyena() -> Iterator[str]:
    found = {(row["model"], row["part"], row["mode"]): row for row in _rows("cpu-models.jsonl") if row["threads"] == 2}
    for model, part in dict.fromkeys(key[:2] for key in found):
        rows = [found[model, part, mode] for mode in ("inference", "training")]
        ratios = (f"{r['ratio']:.1f} ({r['ratio_lowest']:.1f} to {r['ratio_highest']:.1f})" for r in rows)
        sizes = (f"{r['ours_peak_bytes'] / 1e6:.0f} against {r['theirs_peak_bytes'] / 1e6:.0f} MB" for r in rows)
        yield f"| `{model}`, batch {rows[0]['batch']} | {' | '.join(ratios)} | {', '.join(sizes)} |"


def _synthetic() -> Iterator[str]:
    rows = _rows("h200-synthetic.jsonl")
    assert len(rows) == 30
    assert all(row["accuracy"] == 1 for row in rows)
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for task in ("induction", "recall"):
            runs = sorted((r for r in rows if (r["task"], r["model"]) == (task, model)), key=lambda r: r["seed"])
            assert [run["seed"] for run in runs] == [0, 1, 2]
            steps = ", ".join(format(run["steps"], ",") for run in runs)
            cells.append(f"100 % each | {steps}")
        yield f" | {' | '.join(cells)} |"


def _simulated() -> Iterator[str]:
    for row in _rows("h200-simulated.jsonl"):
        above, rest, error = (100 * row[name] for name in ("above", "above_rule", "above_rule_error"))
        yield (
            f"| {row['model']} | {row['parameters']:,} | {row['lr']:g} | {row['steps']:,} | {row['bits']:.4f} | "
            f"{above:+.2f} % | {rest:+.3f} ± {error:.3f} % |"
        )


@pytest.mark.parametrize("part", [_decode, _long, _plain_hyena, _simulated, _synthetic])
def test_the_page_quotes_its_rows(part: Any) -> None:
    lines = list(part())
    assert len(lines) > 2
    for line in lines:
        assert line in PAGE


def test_the_goals_on_a_cpu_are_met() -> None:
    """What the page says of the mixer: 2.5 in inference, 2 in training, no more memory."""
    rows = [row for row in _rows("cpu-models.jsonl") if row["part"] == "mixer"]
    assert {(row["length"], row["threads"]) for row in rows} == {
        (n, threads) for n in (1024, 16384) for threads in (1, 2)
    }
    for row in rows:
        assert row["ratio"] >= (2.5 if row["mode"] == "inference" else 2)
        assert row["ours_peak_bytes"] <= row["theirs_peak_bytes"]


def test_small_models_come_within_one_percent_and_markov_models_do_not() -> None:
    near = {row["model"] for row in _rows("h200-simulated.jsonl") if max(row["above"], row["above_rule"]) < 0.01}
    assert near == {"multihybrid", "hyena", "h3"}
    assert _rows("cpu-simulated.jsonl")[0]["above"] > 0.02
