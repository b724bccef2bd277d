"""The slow, obvious FASTA reader that the store is tested against: one letter after another, a dict for the codes."""

import gzip
from pathlib import Path

TOKENS = {"A": 7, "C": 8, "G": 9, "T": 10}


def read_fasta(path: Path) -> dict[str, str]:
    """Name -> letters as they stand in the file; contigs without bases are left out."""
    return parse_fasta(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def parse_fasta(data: bytes) -> dict[str, str]:
    contigs: dict[str, list[str]] = {}
    name = ""
    for line in data.decode("utf-8-sig").replace("\r\n", "\n").split("\n"):
        if line.startswith(">"):
            name = line[1:].split()[0]
            assert name not in contigs
            contigs[name] = []
        elif line:
            contigs[name].append(line)
    joined = {name: "".join(parts) for name, parts in contigs.items()}
    return {name: sequence for name, sequence in joined.items() if sequence}


def tokens_of(sequence: str) -> list[int]:
    """HyenaDNA's ids: what is not A, C, G or T is N (11)."""
    return [TOKENS.get(letter.upper(), 11) for letter in sequence]


def letters_of(sequence: str) -> str:
    """What `genome[...]` gives for these letters of a file."""
    kept = "".join(letter if letter.upper() in "ACGTN" else "N" for letter in sequence)
    return "".join(k.lower() if letter.islower() else k for k, letter in zip(kept, sequence, strict=True))


def runs_of(flags: list[bool]) -> list[list[int]]:
    """Stretches of True as [start, end)."""
    runs: list[list[int]] = []
    for i, flag in enumerate(flags):
        if flag and runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        elif flag:
            runs.append([i, i + 1])
    return runs
