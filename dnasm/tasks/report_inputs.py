"""Read what a report shows: the files of a run directory, and a score table in any form that `score` writes."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from dnasm.errors import ConfigError, InputError, MissingExtra
from dnasm.genome.files import lines, open_bytes
from dnasm.genome.vcf import VcfRecord, read_vcf
from dnasm.tasks.score_methods import Method

Numbers = npt.NDArray[np.float64]
_MAX_JSON_BYTES = 64 << 20
METHODS = get_args(Method)
"""How `dnasm score` may have compared alleles; columns are named after it."""


@dataclass(frozen=True)
class Score:
    """One row of a score table, by one method."""

    chrom: str
    pos: int
    ref: str
    alt: str
    value: float
    """Of the chosen strands."""
    forward: float
    reverse: float
    status: str


@dataclass(frozen=True)
class Run:
    """A run directory; what is not there yet is empty."""

    path: Path
    record: dict[str, Any]
    """run.json."""
    metrics: dict[str, Numbers]
    """Columns of metrics.csv; nan where a row has no value."""
    positions: dict[str, Numbers]
    """Columns of position_loss.csv."""
    baselines: dict[str, list[dict[str, Any]]]
    """baselines.json."""
    trained: bool = True
    """False: no run, but the record of a score table or track."""


def read_run(folder: str) -> Run:
    """Read a run directory.

    Raises:
        InputError: If it is none, or a file in it is damaged.
    """
    path = Path(folder)
    if not (path / "run.json").is_file():
        raise InputError(f"{path}: is no run directory (there is no run.json in it)")
    return Run(
        path,
        read_json(path / "run.json"),
        _read_columns(path / "metrics.csv"),
        _read_columns(path / "position_loss.csv"),
        read_json(path / "baselines.json") if (path / "baselines.json").is_file() else {},
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        InputError: If the file is too large, damaged, or holds something else.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"{path}: has over 64 MB; this is no record of a command")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object")
    return value


def _read_columns(path: Path) -> dict[str, Numbers]:
    """Read a CSV file of numbers with a header; an empty cell is nan, a file that is not there has no columns."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        values: dict[str, list[float]] = {name: [] for name in rows.fieldnames or ()}
        for row in rows:
            for name, column in values.items():
                column.append(_number(row[name], f"{path}:{rows.line_num}: {name}"))
    return {name: np.array(column) for name, column in values.items()}


def _number(text: str | None, where: str) -> float:
    if text in ("", ".", None):
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where} is {text[:40]!r}, not a number") from None


def read_scores(name: str) -> dict[str, list[Score]]:
    """Read a score table: .tsv, .parquet, or an annotated .vcf or .vcf.gz.

    Returns:
        Every method that the table has columns of, with all its rows in their order; other columns are left alone.

    Raises:
        ConfigError: If the suffix names none of these.
        InputError: If it is missing or damaged, or `dnasm score` did not write it.
    """
    readers: dict[str, Callable[[str], dict[str, list[Score]]]] = {
        ".tsv": _read_tsv,
        ".parquet": _read_parquet,
        ".vcf": _read_vcf,
        ".vcf.gz": _read_vcf,
        ".vcf.bgz": _read_vcf,
    }
    found = [suffix for suffix in readers if name.lower().endswith(suffix)]
    if not found:
        raise ConfigError(f"--scores {name}: the suffix must be one of {', '.join(readers)}")
    return readers[max(found, key=len)](name)


def _read_tsv(name: str) -> dict[str, list[Score]]:
    with open_bytes(Path(name)) as source:
        rows = ((number, line.split("\t")) for number, line in lines(source) if line)
        _, header = next(rows, (0, []))
        places = {method: [header.index(column) for column in _columns(method)] for method in _methods(header, name)}
        found: dict[str, list[Score]] = {method: [] for method in places}
        for number, cells in rows:
            if len(cells) != len(header):
                raise InputError(f"{name}:{number}: has {len(cells)} columns, the header {len(header)}")
            for method, place in places.items():
                found[method].append(_score([cells[column] for column in place], f"{name}:{number}"))
    return found


def _read_parquet(name: str) -> dict[str, list[Score]]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(".parquet needs pyarrow: pip install 'dnasm[tables]'") from None
    try:
        table = pq.read_table(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read: {error}") from error
    found: dict[str, list[Score]] = {}
    for method in _methods(table.column_names, name):
        rows = zip(*(table[column].to_pylist() for column in _columns(method)), strict=True)
        found[method] = [
            Score(row[0], int(row[1]), row[2], row[3], _or_nan(row[4]), _or_nan(row[5]), _or_nan(row[6]), row[7])
            for row in rows
        ]
    return found


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _read_vcf(name: str) -> dict[str, list[Score]]:
    with read_vcf(name) as reader:
        declared = {match[1] for line in reader.header if (match := re.match(r"##INFO=<ID=(\w+),", line))}
        keys = {method: [f"DNASM_{column.upper()}" for column in _columns(method)[4:]] for method in METHODS}
        found: dict[str, list[Score]] = {method: [] for method in keys if declared.issuperset(keys[method])}
        if not found:
            raise InputError(f"{name}: has no INFO/DNASM_LLR or another score; give an output of dnasm score")
        for record in reader:
            info = dict(part.partition("=")[::2] for part in record.text.split("\t", 8)[7].split(";"))
            for method, rows in found.items():
                rows += _of_record(record, info, keys[method], f"{name}:{record.line}")
    return found


def _of_record(record: VcfRecord, info: Mapping[str, str], keys: Sequence[str], where: str) -> Iterator[Score]:
    values = [info.get(key, "").split(",") for key in keys]
    if any(len(value) != max(1, len(record.alts)) for value in values):
        raise InputError(f"{where}: INFO/DNASM_* does not have one value for each ALT")
    for i, alt in enumerate(record.alts):
        yield _score([record.contig, str(record.pos), record.ref, alt, *(value[i] for value in values)], where)
    if not record.alts:
        yield Score(record.contig, record.pos, record.ref, ".", math.nan, math.nan, math.nan, "unsupported")


def _columns(method: str) -> tuple[str, ...]:
    """Columns of one method's rows, in the order of `Score`."""
    return ("chrom", "pos", "ref", "alt", method, f"{method}_forward", f"{method}_reverse", "status")


def _methods(header: Sequence[str], name: str) -> list[str]:
    """Find the methods that a table has all columns of."""
    found = [method for method in METHODS if set(_columns(method)).issubset(header)]
    if not found:
        missing = next(column for column in _columns("llr") if column not in header)
        raise InputError(
            f"{name}: has no column {missing!r} (or those of another method); give an output of dnasm score"
        )
    return found


def _score(cells: list[str], where: str) -> Score:
    chrom, pos, ref, alt, *numbers, status = cells
    value, forward, reverse = (_number(text, where) for text in numbers)
    return Score(chrom, int(_number(pos, where)), ref, alt, value, forward, reverse, status)
