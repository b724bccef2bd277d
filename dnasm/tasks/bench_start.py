"""`dnasm bench start`: how long a user waits for `import dnasm` and `dnasm --help`, beside a bare Python and torch."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from dnasm.config import BenchConfig
from dnasm.tasks.bench import Row, race

CASES = (
    ("import dnasm", ("-c", "import dnasm"), 0.3),
    ("dnasm --help", ("-m", "dnasm", "--help"), 0.5),
)


def rows(config: BenchConfig) -> Iterator[Row]:
    """Time each as a whole process; `theirs` is a process that imports torch and nothing else."""
    for case, arguments, target in CASES:
        timed = race(partial(_run, arguments), partial(_run, ("-c", "import torch")), config.repeats)
        yield {"case": case, "against": "import torch", "target_seconds": target, **timed.summary()}


def _run(arguments: tuple[str, ...], _turn: int) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
