"""How a genome's preparation is shown on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnasm.genome.build import Progress

EVERY = 10.0
"""Seconds between two plain lines."""


@contextmanager
def show_progress(genome: Path, *, quiet: bool = False) -> Iterator[Progress | None]:
    """Yield what `prepare` takes as `progress`; it prints nothing before the first call.

    Args:
        genome: Named in what is printed.
        quiet: Print nothing.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar(genome) as progress:
            yield progress
    else:
        yield _PlainLines(genome)


class _PlainLines:
    def __init__(self, genome: Path) -> None:
        self._genome = genome
        self._began = time.monotonic()
        self._next = self._began

    def __call__(self, done: int, size: int, bases: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        if self._next == self._began:
            print(f"preparing {self._genome} ({size:,} bytes)", file=sys.stderr)
        else:
            rate = bases / 1e6 / (now - self._began)
            left = (size - done) / max(done, 1) * (now - self._began)
            print(f"{done / size:.0%}, {rate:,.0f} Mb/s, {left:,.0f} s left", file=sys.stderr)
        self._next = now + EVERY


@contextmanager
def _bar(genome: Path) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("preparing {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} Mb/s"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(genome.name, total=None, rate=0.0)

    def update(done: int, size: int, bases: int) -> None:
        bar.start()  # with the first call: a store that is up to date shows no bar
        bar.update(task, completed=done, total=size, rate=bases / 1e6 / max(time.monotonic() - began, 1e-3))

    try:
        yield update
    finally:
        bar.stop()
