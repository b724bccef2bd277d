"""Tell on standard error how far a command is: a bar on a terminal, a line now and then elsewhere."""

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 10.0


class Meter:
    """Counts finished items, with their rate and the time that is left."""

    def __init__(self, what: str, unit: str, total: int | None, *, quiet: bool = False) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._quiet = quiet
        self._done = 0
        self._begun = self._told = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "Meter":
        self._begun = self._told = time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, status="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Add finished items, and say so if it is time to."""
        self._done += count
        if self._bar is not None:
            self._bar.update(self._task, advance=count, status=self.status())
        elif not self._quiet and time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            print(f"{self._what}: {self.status()}", file=sys.stderr, flush=True)

    def status(self) -> str:
        """Say how far it is, as `1,200 of 4,109 variants, 56/s, 0:52 left`."""
        elapsed = max(time.monotonic() - self._begun, 1e-9)
        rate = self._done / elapsed
        of_total = "" if self._total is None else f" of {self._total:,}"
        text = f"{self._done:,}{of_total} {self._unit}, {_three_digits(rate)}/s"
        if self._total is None or not self._done:
            return text
        left = int((self._total - self._done) / rate)
        return f"{text}, {left // 60}:{left % 60:02d} left"


def _three_digits(rate: float) -> str:
    """Write a rate without powers of ten.

    >>> [_three_digits(rate) for rate in (0.1234, 12.345, 14800.4)]
    ['0.123', '12.3', '14,800']
    """
    return f"{rate:.3g}" if rate < 1000 else f"{round(rate, 2 - math.floor(math.log10(rate))):,.0f}"


def counted(count: int, thing: str) -> str:
    """Write how many there are.

    >>> counted(1, "allele"), counted(4109, "allele")
    ('1 allele', '4,109 alleles')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
