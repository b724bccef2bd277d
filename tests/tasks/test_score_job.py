"""Shards: a stopped run goes on, ranks share the work, and the bytes are those of an undisturbed run."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dnasm.config import ScoreConfig
from dnasm.errors import ConfigError, InputError, OutputError, ReferenceMismatch
from dnasm.models.checkpoint import save_model
from dnasm.tasks import score, score_job
from dnasm.tasks.score_parts import Parts, Rank
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_scorer import VariantScorer

from .scoring import random_sequence, random_variants, small_model, write_fasta

SEQUENCE = random_sequence(900)
COUNT, SHARD = 24, 2


class _Killed(BaseException):
    """Stands for a signal that nothing survives."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    write_fasta(folder / "g.fa", c=SEQUENCE)
    save_model(small_model(), folder / "model", {})
    rows = sorted((text.split(":") for text in random_variants("c", SEQUENCE, COUNT)), key=lambda row: int(row[1]))
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    lines = [f"{c}\t{pos}\tid\t{ref}\t{alt}\t.\t.\tX={i % 2}" for i, (c, pos, ref, alt) in enumerate(rows)]
    (folder / "v.vcf").write_text("\n".join(["##fileformat=VCFv4.2", "##contig=<ID=c>", columns, *lines]) + "\n")
    return folder


def _config(folder: Path, out: Path, **more: object) -> ScoreConfig:
    settings = {"window": 96, "shard_size": SHARD, "device": "cpu", "quiet": True, **more}
    files = {"model": str(folder / "model"), "genome": str(folder / "g.fa"), "variants": str(folder / "v.vcf")}
    return ScoreConfig(out=str(out), **files, **settings)  # type: ignore[arg-type]


@contextmanager
def _calls(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> Iterator[list[int]]:
    """Count the forward calls of each shard, and stop everything once so many are saved."""
    calls: list[int] = []
    save, scorer = Parts.save, VariantScorer.score
    seen: list[VariantScorer] = []

    def spied_score(self: VariantScorer, alleles: object) -> Iterator[ScoreTable]:
        seen[:] = [self]
        return scorer(self, alleles)  # type: ignore[arg-type]

    def spied_save(self: Parts, shard: int, table: ScoreTable) -> None:
        calls.append(seen[0].runner.calls - sum(calls))
        if stop_after is not None and len(calls) > stop_after:
            raise _Killed
        save(self, shard, table)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "save", spied_save)
        patch.setattr(VariantScorer, "score", spied_score)
        yield calls


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> tuple[bytes, list[int]]:
    """The output of one run, and the forward calls of its shards."""
    with pytest.MonkeyPatch.context() as monkeypatch, _calls(monkeypatch) as calls:
        score.run(_config(folder, folder / "whole.vcf", batch_size=1))
    return (folder / "whole.vcf").read_bytes(), calls


@pytest.mark.parametrize("share", [1 / 3, 1 / 2, 2 / 3])
def test_a_stopped_run_goes_on_where_it_was(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: tuple[bytes, list[int]],
    share: float,
) -> None:
    expected, all_calls = undisturbed
    shards = COUNT // SHARD
    done = round(share * shards)
    with _calls(monkeypatch, done) as first, pytest.raises(_Killed):
        score.run(_config(folder, tmp_path / "out.vcf", batch_size=1))
    assert len(first) == done + 1
    assert not (tmp_path / "out.vcf").exists()
    with _calls(monkeypatch) as second:
        score.run(_config(folder, tmp_path / "out.vcf", batch_size=1))
    assert len(second) == shards - done
    assert sum(second) <= sum(all_calls) * (1 - done / shards) + max(all_calls)
    assert (tmp_path / "out.vcf").read_bytes() == expected
    assert not list(tmp_path.glob(".*"))


def test_another_batch_size_is_no_other_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[bytes, list[int]]
) -> None:
    with _calls(monkeypatch, 4), pytest.raises(_Killed):
        score.run(_config(folder, tmp_path / "out.vcf", batch_size=1))
    with _calls(monkeypatch) as second:
        score.run(_config(folder, tmp_path / "out.vcf", batch_size=64))
    assert len(second) == COUNT // SHARD - 4
    assert (tmp_path / "out.vcf").read_bytes() == undisturbed[0]


def test_never_resumes_if_told_so_and_never_from_another_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in ({"resume": "never"}, {"window": 64}, {"strands": "forward"}, {"regions": "c:1-890"}):
        with _calls(monkeypatch, 3), pytest.raises(_Killed):
            score.run(_config(folder, tmp_path / "out.tsv", force=True))
        with _calls(monkeypatch) as calls:
            score.run(_config(folder, tmp_path / "out.tsv", force=True, **more))
        assert len(calls) >= COUNT // SHARD - 1
        assert not list(tmp_path.glob(".*"))  # what the stopped run left is gone too


@pytest.mark.parametrize("suffix", ["vcf.gz", "tsv"])
def test_three_ranks_write_what_one_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    one = tmp_path / f"one.{suffix}"
    score.run(_config(folder, one, batch_size=1, shard_size=1000))
    out = tmp_path / f"three.{suffix}"
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("2", "1", "0"):
        monkeypatch.setenv("RANK", rank)
        score.run(_config(folder, out, batch_size=64))
        assert out.exists() == (rank == "0")
    # The blocks of a bgzip may lie elsewhere; what is in them may not differ.
    unpack = gzip.decompress if suffix == "vcf.gz" else bytes
    first, second = (unpack(path.read_bytes()) for path in (one, out))
    assert first == second
    assert not list(tmp_path.glob(".*"))


def test_ranks_have_stretches_that_cover_everything_once() -> None:
    for shards, ranks in ((7, 3), (3, 7), (1, 2), (12, 4)):
        owners = [[r for r in range(ranks) if Rank(r, ranks).owns(shard, shards)] for shard in range(shards)]
        assert all(len(owner) == 1 for owner in owners)
        assert owners == sorted(owners)


def test_a_rank_that_fails_is_heard_of(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(score_job.ScoreJob, "_finish_shards", lambda *_: (_ for _ in ()).throw(InputError("line 9")))
    with pytest.raises(InputError):
        score.run(_config(folder, tmp_path / "out.tsv"))
    monkeypatch.setattr(score_job.ScoreJob, "_finish_shards", lambda *_: None)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(OutputError, match="rank 1 stopped: line 9"):
        score.run(_config(folder, tmp_path / "out.tsv"))
    with pytest.raises(ConfigError, match="several ranks"):
        score.run(_config(folder, Path("-")))


def test_an_error_at_the_start_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    other = write_fasta(tmp_path / "other.fa", c=random_sequence(900, seed=5))
    with pytest.raises(ReferenceMismatch):
        score.run(replace(_config(folder, tmp_path / "out.tsv"), genome=str(other)))
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_shard_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    row = ("c", 7, "A", "G", 0.1 + 0.2, float("nan"), -1e-300, True, "ok", "")
    parts = Parts(str(tmp_path / "out.tsv"), {})
    parts.save(0, ScoreTable.from_rows([row]))
    assert repr(list(parts.load(0).rows())) == repr([row])
    assert os.listdir(parts.folder) == ["00000000.json"]
