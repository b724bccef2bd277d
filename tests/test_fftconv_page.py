"""docs/fftconv.md and the README quote the rows of docs/benchmarks/cpu-fftconv.jsonl."""

import json
from collections.abc import Iterator

from tests.conftest import ROOT

ROWS = [json.loads(line) for line in (ROOT / "docs/benchmarks/cpu-fftconv.jsonl").read_text().splitlines()]
OURS, THEIRS = "dnasm", "torch rfft"


def _lines() -> Iterator[str]:
    """Table lines: ratios with their spread, and peak memory where it was taken."""
    found = {(row["length"], row["gated"], row["backward"], row["contender"]): row for row in ROWS}
    for length, gated in dict.fromkeys(key[:2] for key in found):
        ratios, sizes = [], []
        for backward in (False, True):
            ours, theirs = (found[length, gated, backward, who] for who in (OURS, THEIRS))
            ratios.append(f"{theirs['ratio']:.1f} ({theirs['ratio_lowest']:.1f} to {theirs['ratio_highest']:.1f})")
            measured = ours["peak_bytes"] is not None
            sizes.append(f"{ours['peak_bytes'] / 2**20:.0f} of {theirs['peak_bytes'] / 2**20:.0f}" if measured else "")
        cells = [f"{length:,}{', both gates' if gated else ''}", *ratios, *sizes]
        yield f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def test_the_table_is_made_of_the_rows() -> None:
    page = (ROOT / "docs/fftconv.md").read_text()
    lines = list(_lines())
    assert len(lines) == 10
    for line in lines:
        assert line in page, line


def test_the_readme_says_what_the_rows_say() -> None:
    forward = [row for row in ROWS if not (row["gated"] or row["backward"])]
    forward = [row for row in forward if row["length"] >= 1024 and row["length"].bit_count() == 1]
    ratios = [row["ratio"] for row in forward if row["contender"] == THEIRS]
    assert f"**{min(ratios):.1f} to {max(ratios):.1f} times** as fast as torch's" in (ROOT / "README.md").read_text()
    peaks = {(row["length"], row["contender"]): row["peak_bytes"] for row in forward}
    assert all(4 * peaks[length, OURS] <= peaks[length, THEIRS] for length, _ in peaks)
