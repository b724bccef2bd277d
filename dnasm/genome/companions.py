"""What other programs' index files say of a FASTA: never trusted, but compared, to find files that were cut off."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from dnasm.errors import InputError
from dnasm.genome.contigs import Contigs
from dnasm.genome.files import lines, open_bytes


def check_companions(genome: Path, contigs: Contigs, *, cut_line: bool) -> list[str]:
    """Compare the contigs with `X.fa.fai` and `X.dict`, where these exist.

    Args:
        genome: The FASTA.
        contigs: What it holds.
        cut_line: Whether its last line has no line end.

    Returns:
        A warning for each of them that speaks of another file.

    Raises:
        InputError: If one lists more than a FASTA holds that stops in the middle of a line: it was cut off.
    """
    warnings = []
    for path, read in ((genome.with_name(f"{genome.name}.fai"), _fai), (_dict_path(genome), _dict)):
        if not path.is_file():
            continue
        try:
            difference, shorter = _compare(read(path), contigs)
        except (InputError, ValueError) as error:
            difference, shorter = f"cannot be read ({error})", False
        if shorter and cut_line:
            raise InputError(f"{genome}: is cut off: it ends in the middle of a line, and {path.name} {difference}")
        if difference:
            advice = f"run `samtools faidx {genome.name}`" if path.suffix == ".fai" else "make it again"
            warnings.append(f"{path.name} {difference}; dnasm does not use it, other programs do: {advice}")
    return warnings


def _dict_path(genome: Path) -> Path:
    name = genome.name.removesuffix(".gz")
    return genome.with_name(f"{name.rsplit('.', 1)[0]}.dict")


def _fai(path: Path) -> Iterator[tuple[str, int]]:
    with open_bytes(path) as source:
        for _, line in lines(source):
            name, length = line.split("\t")[:2]
            yield name, int(length)


def _dict(path: Path) -> Iterator[tuple[str, int]]:
    with open_bytes(path) as source:
        for _, line in lines(source):
            if line.startswith("@SQ\t"):
                fields = dict(field.split(":", 1) for field in line.split("\t")[1:])
                yield fields["SN"], int(fields["LN"])


def _compare(listed: Iterator[tuple[str, int]], contigs: Contigs) -> tuple[str, bool]:
    """The first difference, in words, and whether the FASTA is shorter there and otherwise the same."""
    nonempty = (row for row in listed if row[1])
    last = len(contigs) - 1
    for i, (theirs, ours) in enumerate(zip_longest(nonempty, contigs.items())):
        if theirs == ours:
            continue
        if theirs is None:
            return f"lacks contig {ours[0]!r}", False
        if ours is None:
            return f"has a contig {theirs[0]!r} that the file lacks", True
        if theirs[0] != ours[0]:
            return f"has {theirs[0]!r} where the file has {ours[0]!r}", False
        shorter = i == last and ours[1] < theirs[1]
        return f"says contig {ours[0]!r} has {theirs[1]:,} bases, the file has {ours[1]:,}", shorter
    return "", False
