"""`dnasm bench`: ours beside what a user would use instead, timed in one run, one JSON line a row."""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dnasm.config import BenchConfig
from dnasm.errors import ConfigError, OutputError
from dnasm.tasks.run_record import git_state, now, versions

Row = dict[str, Any]


def run(config: BenchConfig) -> None:
    """Time what was asked for; each row goes to standard output, and to the end of `out`, as soon as it is there.

    The rows of `dnasm bench NAME` come from `dnasm.tasks.bench_NAME.rows(config)`.

    Raises:
        ConfigError: If `repeats` is below 1.
        OutputError: If `out` cannot be written.
    """
    if config.repeats < 1:
        raise ConfigError(f"repeats is {config.repeats}; a median needs at least 1 run")
    rows: Callable[[BenchConfig], Iterator[Row]] = import_module(f"dnasm.tasks.bench_{config.what}").rows
    setting = {
        "bench": config.what,
        "versions": versions(),
        "git": git_state(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "command": shlex.join(["dnasm", *sys.argv[1:]]),
    }
    for row in rows(config):
        line = json.dumps({**setting, "time": now().isoformat(timespec="seconds"), **row})
        print(line, flush=True)
        if config.out is not None:
            _append(Path(config.out), line)


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another --out") from error


def say(text: str) -> None:
    """Talk to whoever waits."""
    print(text, file=sys.stderr, flush=True)


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Race:
    """Seconds of two contenders that took turns."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times longer they took than we did, turn by turn, sorted."""
        return sorted(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    def summary(self) -> Row:
        """Medians and spread."""
        ratios = self.ratios
        return {
            "ours_seconds": statistics.median(self.ours),
            "theirs_seconds": statistics.median(self.theirs),
            "ratio": statistics.median(ratios),
            "ratio_lowest": ratios[0],
            "ratio_highest": ratios[-1],
            "repeats": len(ratios),
        }


def race(ours: Callable[[int], object], theirs: Callable[[int], object], repeats: int) -> Race:
    """Run both in turn, so that the machine's moods meet both alike; the first turn warms up and is not counted.

    Args:
        ours: Called with the number of the turn.
        theirs: The same.
        repeats: Turns that count.
    """
    turns = [(seconds(partial(ours, i)), seconds(partial(theirs, i))) for i in range(repeats + 1)]
    return Race([turn[0] for turn in turns[1:]], [turn[1] for turn in turns[1:]])
