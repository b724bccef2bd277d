"""docs/benchmarks/gpu.md shows what its JSON lines say, and nothing else."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"
HYENADNA, GRAPH = "HyenaDNA's code", "Transformer, static cache and CUDA graph"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "bench_page.py"
    spec = importlib.util.spec_from_file_location("bench_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    files = [BENCHMARKS / f"h200-{name}.jsonl" for name in ("fftconv", "train", "generate")]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_tables_come_from_the_rows(page: ModuleType, rows: list[dict[str, Any]]) -> None:
    text = (BENCHMARKS / "gpu.md").read_text()
    for name, made in page.sections(rows):
        assert f"<!-- {name} -->\n{made}\n<!-- end -->" in text, f"run scripts/bench_page.py: {name} is stale"


def test_every_row_says_how_it_was_made(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["command"].startswith("dnasm bench")
        assert {"git", "versions", "time"} <= row.keys()
        assert row["git"]["commit"]


def test_the_readmes_figures_are_the_rows(rows: list[dict[str, Any]]) -> None:
    def ratios(contender: str, **which: Any) -> list[float]:
        chosen = [r for r in rows if r.get("contender") == contender and which.items() <= r.items() and "ratio" in r]
        return sorted(r["ratio"] for r in chosen if r.get("length", 0) <= 262_144 or "length" in which)

    def between(contender: str, **which: Any) -> str:
        found = ratios(contender, **which)
        return f"{found[0]:.1f} to {found[-1]:.1f}"

    def once(contender: str, **which: Any) -> str:
        [ratio] = ratios(contender, **which)
        return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}"

    large = {"bench": "fftconv", "batch": 64, "gated": True, "filter": "inside"}
    flash, nvidia = (
        [between(name, **large, backward=back) for back in (False, True)]
        for name in ("flashfftconv", "subquadratic_ops_torch")
    )
    original = sorted(r for n in (1024, 4096, 32_768) for r in ratios(HYENADNA, bench="train", length=n))
    readme = (BENCHMARKS.parents[1] / "README.md").read_text()
    for words in (
        f"**{flash[0]} times** as fast as FlashFFTConv forward, {flash[1]} with backward",
        f"{nvidia[0]} times as fast as NVIDIA's op forward, {nvidia[1]} with backward",
        f"**{original[0]:.1f} to {original[-1]:.1f} times** as fast as HyenaDNA's own code from 1k to 32k",
        f"{once(HYENADNA, bench='train', length=1_000_000)} times at 1M",
        f"{once('Transformer', bench='train', length=32_768)} times as fast as a Transformer at 32k",
        f"**{once('Transformer, eager', prompt=1536)} times** the tokens a second of an eager Transformer",
        f"{once(GRAPH, prompt=1536)} times those of one with CUDA graphs",
    ):
        assert words in readme
