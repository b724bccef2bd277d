"""`dnasm bench loader`: random windows to uint8 batches beside pyfaidx, their share of a training step, memory."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyfaidx
import torch

from dnasm.config import BenchConfig, DataConfig, GenomeConfig
from dnasm.datasets.corpus import Corpus
from dnasm.datasets.dataset import TrainingBatches
from dnasm.genome.store import prepare
from dnasm.models import build_model
from dnasm.presets import preset
from dnasm.resources import locate
from dnasm.tasks.bench import Row, race, say, seconds
from dnasm.training.loss import next_base_loss
from dnasm.vocabulary import ENCODE

YEAST = "dnasm:data/yeast_r64.fa.gz"
MIN_BASES = 64_000_000
SHAPES = ((1024, 256, 4.0), (1024, 32, 4.0), (131_072, 4, 3.0))
"""Window, windows in a batch (256 as published, 32 as is the default), how many times faster than pyfaidx is wanted."""
BASES_PER_TURN = 16_000_000
MOST_STEP_SHARE = 0.01
MOST_WORKER_BYTES = 100_000_000
LEAST_PREPARED_PER_SECOND = 100_000_000

_IMPORT = "import json, resource, sys, torch"
_PRINT_PEAK = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
_BY_SHELL = '"$0" "$@"; exit $?'  # ru_maxrss begins at what the parent holds; a shell holds next to nothing
_READ = """
from dnasm.config import DataConfig, GenomeConfig
from dnasm.datasets.corpus import Corpus
from dnasm.datasets.dataset import TrainingBatches
settings = json.loads(sys.argv[1])
genomes = [GenomeConfig(**genome) for genome in settings.pop("genomes")]
batches = TrainingBatches(Corpus(DataConfig(genomes=genomes, **settings), quiet=True))
for i in range(64):
    batches[i]
"""


def rows(config: BenchConfig) -> Iterator[Row]:
    """Yield one row for each thing that is timed; `meets` says whether it reached its target."""
    with TemporaryDirectory(prefix="dnasm-bench-") as folder:
        source = config.genome or YEAST
        say(f"writing a plain FASTA of at least {MIN_BASES / 1e6:.0f} Mb from {source}")
        fasta = Path(folder) / "genome.fa"
        held_out = _write_plain(locate(source), fasta, MIN_BASES)
        _warm_the_allocator()
        setting = {"genome": source, "fasta_bytes": fasta.stat().st_size}
        yield {**setting, **_prepare_row(fasta, config.repeats)}
        for window, batch_size, target in SHAPES:
            say(f"random windows of {window:,} bases, {config.repeats} turns")
            yield {**setting, **_reader_row(_settings(fasta, held_out, window, batch_size), config.repeats, target)}
        say("a training step of the smallest preset")
        yield {**setting, **_step_row(_settings(fasta, held_out, *SHAPES[1][:2]), config.repeats)}
        for window, batch_size, _ in SHAPES[1:]:
            yield {**setting, **_memory_row(_settings(fasta, held_out, window, batch_size))}


def _warm_the_allocator() -> None:
    """Bring malloc to the state that it has after a training step: it then keeps what is freed, for both contenders."""
    np.ones(30 << 20, dtype=np.uint8)


def _write_plain(source: Path, target: Path, least: int) -> str:
    """Copy a FASTA, as often as `least` bases need, to a plain one with lines of 60; return its first contig's name."""
    with pyfaidx.Fasta(str(source), as_raw=True) as genome, target.open("w") as out:
        names, written, copy = list(genome.keys()), 0, 0
        while written < least:
            copy += 1
            for name in names:
                letters = genome[name][:]
                out.write(f">{name}_copy{copy}\n")
                out.writelines(f"{letters[i : i + 60]}\n" for i in range(0, len(letters), 60))
                written += len(letters)
    return f"{names[0]}_copy1"


def _settings(fasta: Path, held_out: str, window: int, batch_size: int) -> DataConfig:
    genome = GenomeConfig(path=str(fasta), validation=[held_out])
    return DataConfig(genomes=[genome], window=window, batch_size=batch_size, windows_per_epoch=1 << 20)


def _prepare_row(fasta: Path, repeats: int) -> Row:
    times = [seconds(lambda: prepare(fasta, force=True)) for _ in range(repeats)]
    per_second = fasta.stat().st_size / statistics.median(times)
    return {
        "case": "prepare a plain FASTA",
        "seconds": statistics.median(times),
        "seconds_lowest": min(times),
        "seconds_highest": max(times),
        "bases_per_second": per_second,
        "target": LEAST_PREPARED_PER_SECOND,
        "meets": per_second >= LEAST_PREPARED_PER_SECOND,
    }


def _reader_row(config: DataConfig, repeats: int, target: float) -> Row:
    batches = TrainingBatches(Corpus(config, quiet=True))
    count = max(1, BASES_PER_TURN // (config.window * config.batch_size))
    with pyfaidx.Fasta(config.genomes[0].path, as_raw=True) as fasta:
        theirs = _pyfaidx_turns(fasta, batches, count)
        result = race(partial(_read, batches, count), theirs, repeats).summary()
    bases = count * config.batch_size * config.window
    return {
        "case": "random windows to uint8 batches",
        "peer": "pyfaidx as_raw and a lookup table",
        "window": config.window,
        "batch_size": config.batch_size,
        "ours_bases_per_second": bases / result["ours_seconds"],
        "theirs_bases_per_second": bases / result["theirs_seconds"],
        **result,
        "target": target,
        "meets": result["ratio"] >= target,
    }


def _read(batches: TrainingBatches, count: int, turn: int) -> None:
    for i in range(count):
        batches[turn * count + i]  # not kept: fresh memory for each batch would be what is timed


def _pyfaidx_turns(fasta: pyfaidx.Fasta, batches: TrainingBatches, count: int) -> Callable[[int], None]:
    """What a user would write: the same places, chosen beforehand; no hash, no N check, no reverse complement."""
    config, corpus = batches.corpus.config, batches.corpus
    name = corpus.genomes[0].contigs.name

    def places(batch: int) -> list[tuple[str, int]]:
        first = batch * config.batch_size
        windows = corpus.sampler.sample(corpus.seed, 0, np.arange(first, first + config.batch_size))
        return [(name(c), s) for c, s in zip(windows.contig.tolist(), windows.start.tolist(), strict=True)]

    def read(turn: int) -> None:
        for batch in chosen[turn % len(chosen)]:
            tokens = np.empty((len(batch), config.window), dtype=np.uint8)
            for row, (contig, start) in enumerate(batch):
                letters = fasta[contig][start : start + config.window]
                tokens[row] = ENCODE[np.frombuffer(letters.encode("ascii"), dtype=np.uint8)]

    chosen = [[places(turn * count + i) for i in range(count)] for turn in range(4)]
    return read


def _step_row(config: DataConfig, repeats: int) -> Row:
    torch.manual_seed(0)
    batches = TrainingBatches(Corpus(config, quiet=True))
    model = build_model(preset("tiny"))
    optimizer = torch.optim.AdamW(model.parameters())
    batch = batches[0]

    def step(_: int) -> None:
        optimizer.zero_grad()
        loss = next_base_loss(model(batch["tokens"]), batch["tokens"], batch["weights"])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()

    per_turn = 64  # batches are read so much faster than a step that one alone could not be timed
    result = race(partial(_read, batches, per_turn), step, repeats).summary()
    share = 1 / (result["ratio"] * per_turn)
    return {
        "case": "share of a training step",
        "peer": "the step of the preset tiny, on the CPU",
        "window": config.window,
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
        "share": share,
        **result,
        "batches_in_ours_seconds": per_turn,
        "target": MOST_STEP_SHARE,
        "meets": share <= MOST_STEP_SHARE,
    }


def _memory_row(config: DataConfig) -> Row:
    """Peak memory of a fresh process that reads batches, above one that imports torch only."""
    settings = json.dumps(
        {
            "genomes": [vars(genome) for genome in config.genomes],
            "window": config.window,
            "batch_size": config.batch_size,
        }
    )
    torch_alone, reading = (_peak_bytes(code, settings) for code in ("", _READ))
    return {
        "case": "peak memory of a worker above torch's own",
        "window": config.window,
        "batch_size": config.batch_size,
        "torch_bytes": torch_alone,
        "above_bytes": reading - torch_alone,
        "target": MOST_WORKER_BYTES,
        "meets": reading - torch_alone < MOST_WORKER_BYTES,
    }


def _peak_bytes(code: str, settings: str) -> int:
    script = "\n".join((_IMPORT, code, _PRINT_PEAK))
    command = ["sh", "-c", _BY_SHELL, sys.executable, "-c", script, settings]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)
