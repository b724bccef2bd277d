import json
from pathlib import Path

import pytest

from dnasm.config import BenchConfig
from dnasm.errors import ConfigError, OutputError
from dnasm.tasks import bench, bench_loader
from dnasm.tasks.bench import Race, race


def test_a_race_takes_turns_and_warms_up_first() -> None:
    calls: list[str] = []
    result = race(lambda turn: calls.append(f"ours {turn}"), lambda turn: calls.append(f"theirs {turn}"), 2)
    assert calls == ["ours 0", "theirs 0", "ours 1", "theirs 1", "ours 2", "theirs 2"]
    assert len(result.ours) == len(result.theirs) == 2


def test_ratios_are_taken_turn_by_turn() -> None:
    summary = Race(ours=[1.0, 10.0, 2.0], theirs=[4.0, 50.0, 6.0]).summary()
    assert (summary["ratio"], summary["ratio_lowest"], summary["ratio_highest"]) == (4, 3, 5)
    assert (summary["ours_seconds"], summary["theirs_seconds"]) == (2, 6)


def test_loader_rows_are_json_lines_with_versions(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_loader, "MIN_BASES", 600_000)
    monkeypatch.setattr(bench_loader, "BASES_PER_TURN", 100_000)
    monkeypatch.setattr(bench_loader, "SHAPES", ((512, 8, 4.0), (512, 2, 4.0)))
    genome = tmp_path / "small.fa"
    genome.write_text("".join(f">chr{i}\n{'ACGTTGCAAT' * 6_000}\n" for i in range(3)))
    out = tmp_path / "rows.jsonl"
    bench.run(BenchConfig(what="loader", genome=str(genome), out=str(out), repeats=2))
    printed = capfd.readouterr().out
    assert out.read_text() == printed
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["case"] for row in rows] == [
        "prepare a plain FASTA",
        "random windows to uint8 batches",
        "random windows to uint8 batches",
        "share of a training step",
        "peak memory of a worker above torch's own",
    ]
    assert all(row["bench"] == "loader" and "torch" in row["versions"] and "meets" in row for row in rows)
    assert rows[0]["fasta_bytes"] > 600_000  # the genome was copied until it was long enough
    assert 0 < rows[3]["share"] < 1
    assert -20e6 < rows[4]["above_bytes"] < 100e6


def test_bad_requests_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="repeats is 0"):
        bench.run(BenchConfig(repeats=0))
    monkeypatch.setattr(bench_loader, "rows", lambda config: iter([{"case": "none"}]))
    with pytest.raises(OutputError, match="cannot be written"):
        bench.run(BenchConfig(out=str(tmp_path / "no" / "rows.jsonl")))


def test_starting_is_timed_as_a_process(capfd: pytest.CaptureFixture[str]) -> None:
    bench.run(BenchConfig(what="start", repeats=1))
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["case"] for row in rows] == ["import dnasm", "dnasm --help"]
    assert all(row["ratio"] > 1 for row in rows), "importing torch takes longer than either"
