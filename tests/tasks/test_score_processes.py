"""Runs as real processes: one that is killed by a signal nothing survives, and three that torchrun starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dnasm.models.checkpoint import save_model

from .scoring import random_sequence, small_model, write_fasta

COUNT, SHARD = 180, 6
WINDOWS = 4
"""Both alleles on both strands: what each of these variants takes, since none shares a window with another."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    letters = random_sequence(COUNT * 20 + 600)
    write_fasta(folder / "g.fa", c=letters)
    save_model(small_model(), folder / "model", {})
    rows = [
        ("c", start + 1, letters[start], "ACGT"["ACGT".index(letters[start]) - 1])
        for start in range(300, 300 + 20 * COUNT, 20)
    ]
    assert len(rows) == COUNT
    (folder / "v.tsv").write_text("chrom\tpos\tref\talt\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    return folder


def _command(out: str, *more: str) -> list[str]:
    files = "--model model --genome g.fa --variants v.tsv"
    settings = f"--window 256 --batch-size 1 --shard-size {SHARD} --device cpu --quiet"
    return ["-m", "dnasm", "score", *files.split(), "--out", out, *settings.split(), *more]


def _run(folder: Path, out: str, *more: str) -> tuple[bytes, int]:
    """Score to the end; return the output and how often the model was called."""
    subprocess.run([sys.executable, *_command(out, *more)], cwd=folder, check=True, timeout=120)
    calls = json.loads((folder / f"{out}.run.json").read_text())["counts"]["forward_calls"]
    return (folder / out).read_bytes(), calls


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> bytes:
    written, calls = _run(folder, "whole.tsv")
    assert calls == WINDOWS * COUNT
    return written


def _kill_at(folder: Path, out: str, share: float) -> int:
    """Start a run, kill it when so much of it is done, and return how many shards were finished."""
    process = subprocess.Popen([sys.executable, *_command(out)], cwd=folder)
    deadline = time.monotonic() + 120
    while len(list(folder.glob(f".{out}.parts-*/[0-9]*.json"))) < share * COUNT / SHARD:
        assert process.poll() is None, "the run was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert not (folder / out).exists()
    return len(list(folder.glob(f".{out}.parts-*/[0-9]*.json")))


@pytest.mark.parametrize("share", [1 / 2, *(pytest.param(s, marks=pytest.mark.slow) for s in (1 / 3, 2 / 3))])
def test_a_killed_run_goes_on_where_it_was(folder: Path, undisturbed: bytes, share: float) -> None:
    out = f"killed{share:.2f}.tsv"
    done = _kill_at(folder, out, share)
    assert share * COUNT / SHARD <= done < COUNT / SHARD
    written, calls = _run(folder, out)
    assert written == undisturbed
    assert calls == WINDOWS * (COUNT - done * SHARD)
    assert calls <= WINDOWS * COUNT * (1 - share) + WINDOWS * SHARD
    assert not list(folder.glob(".*.parts-*"))


@pytest.mark.slow
def test_three_processes_of_torchrun_write_what_one_does(folder: Path, undisturbed: bytes) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    subprocess.run([*torchrun, *_command("three.tsv")], cwd=folder, check=True, timeout=240)
    assert (folder / "three.tsv").read_bytes() == undisturbed
    calls = json.loads((folder / "three.tsv.run.json").read_text())["counts"]["forward_calls"]
    assert calls == WINDOWS * COUNT / 3  # the first rank's own share
    assert not list(folder.glob(".*.parts-*"))
