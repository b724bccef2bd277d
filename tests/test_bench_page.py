"""docs/benchmarks/gpu.md shows what its JSON lines say, and nothing else."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"


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
