"""`dnasm prepare`: build a genome's token store, and say what the file holds."""

import sys
from collections.abc import Iterator

from dnasm.config import PrepareConfig
from dnasm.genome.files import input_path
from dnasm.genome.progress import show_progress
from dnasm.genome.store import PreparedStore, prepare

COLUMNS = ("contig", "length", "n", "soft_masked", "other", "letters")
SHOWN = 40
"""Rows that a terminal gets; a file or pipe gets all."""


def run(config: PrepareConfig) -> None:
    """Build the store unless it is up to date; print a table of the contigs.

    Raises:
        InputError: If the file is no genome, or with `strict` if anything is odd about it.
        OutputError: If the store can be written nowhere.
    """
    genome = input_path(config.genome)
    with show_progress(genome, quiet=config.quiet) as progress:
        found = prepare(genome, force=config.force, strict=config.strict, rna=config.rna, progress=progress)
    if config.quiet:
        return
    if sys.stdout.isatty():
        _print_table(found)
    else:
        print("\t".join(COLUMNS))
        for row in _rows(found):
            print("\t".join(map(str, row)))
    print(_summary(found), file=sys.stderr)


def _rows(found: PreparedStore) -> Iterator[tuple[str, int, int, int, int, str]]:
    """Rows of `COLUMNS`: one for each contig."""
    counts = zip(found.contigs.items(), found.n.tolist(), found.soft_masked.tolist(), strict=True)
    with_letters = set(found.counted[:, 0].tolist())
    for i, ((name, length), n, soft_masked) in enumerate(counts):
        letters = found.letters(i) if i in with_letters else {}
        yield name, length, n, soft_masked, sum(letters.values()), _spell(letters, "=") or "."


def _summary(found: PreparedStore) -> str:
    bases = found.contigs.total
    parts = [
        f"contigs {len(found.contigs):,}",
        f"bases {bases:,}",
        f"N {found.n.sum():,}",
        f"soft-masked {found.soft_masked.sum():,}",
    ]
    if letters := found.letters():
        parts.append(f"other letters, read as N, {sum(letters.values()):,} ({_spell(letters, ' ')})")
    rate = bases / 1e6 / max(found.seconds, 1e-9)
    how = f"built in {found.seconds:.2f} s, {rate:,.0f} Mb/s" if found.built else "up to date"
    return f"{found.genome}: {', '.join(parts)}\n{found.directory}: {how}"


def _spell(letters: dict[str, int], between: str) -> str:
    return ",".join(f"{letter}{between}{count}" for letter, count in letters.items())


def _print_table(found: PreparedStore) -> None:
    from itertools import islice

    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(found.genome), title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("contig", "letters") else "right", overflow="fold")
    for name, *numbers, letters in islice(_rows(found), SHOWN):
        table.add_row(str(name), *(f"{number:,}" for number in numbers), str(letters))
    Console().print(table)
    if len(found.contigs) > SHOWN:
        print(f"... and {len(found.contigs) - SHOWN:,} more contigs; redirect the output to a file to see them all")
