"""Finding a genome's token store, and building it where it is absent or stale."""

import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from dnasm.errors import DnasmError, InputError, OutputError
from dnasm.genome import build, layout
from dnasm.genome.companions import check_companions
from dnasm.genome.contigs import Contigs, Int64s
from dnasm.genome.fasta import COUNTED
from dnasm.genome.files import check_regular, input_path
from dnasm.genome.reader import TokenStore
from dnasm.genome.runs import count_inside

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedStore:
    """What `prepare` found in a genome."""

    genome: Path
    directory: Path
    """Where its token store lies."""
    contigs: Contigs
    n: Int64s
    """For each contig, letters N."""
    soft_masked: Int64s
    """For each contig, lower-case letters."""
    counted: Int64s
    """Rows (contig, index into `fasta.COUNTED`, count), sorted: other letters, which are read as N."""
    warnings: list[str]
    """What is odd about the file, without being wrong."""
    built: bool
    """Whether the store was built now, or found up to date."""
    seconds: float
    """How long that took."""

    def letters(self, contig: int | None = None) -> dict[str, int]:
        """How often each letter other than N occurs that is read as N, in one contig or in all."""
        rows = self.counted
        if contig is not None:
            rows = rows[slice(*np.searchsorted(rows[:, 0], [contig, contig + 1]))]
        sums = np.bincount(rows[:, 1], rows[:, 2], len(COUNTED)).astype(np.int64).tolist()
        return {letter: count for letter, count in zip(COUNTED, sums, strict=True) if count}


@dataclass(frozen=True)
class Found:
    """The outcome of looking for a genome's store."""

    store: TokenStore | None
    reasons: list[str]
    """Why a store that exists was not taken."""
    rna: bool = False
    """Whether the store that exists reads U as T."""


def find_store(genome: Path, rna: bool | None = None) -> Found:
    """Look for a fresh store beside the genome and in the cache folder.

    Args:
        genome: The genome file.
        rna: Take only a store that reads U as T, or only one that does not; None takes either.
    """
    now = layout.Fingerprint.of(genome)
    reasons, recorded = [], False
    for directory in filter(None, (layout.store_beside(genome), layout.store_in_cache(genome))):
        try:
            store = TokenStore(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reasons.append(f"{directory} is damaged: {error}")
            continue
        recorded = store.index.rna
        change = store.index.fingerprint.difference(now)
        if not change and rna in (None, recorded):
            return Found(store, reasons, recorded)
        store.close()
        reasons.append(f"{directory} is stale: {change or 'it reads U the other way'}")
    return Found(None, reasons, recorded)


def _open_built(directory: Path) -> TokenStore:
    """Open a store that was published this moment; another builder may be between the two renames that replace it."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            return TokenStore(directory)
        time.sleep(0.05)
    return TokenStore(directory)


def ensure_store(
    genome: Path,
    *,
    force: bool = False,
    strict: bool = False,
    rna: bool | None = None,
    progress: build.Progress | None = None,
) -> tuple[TokenStore, bool, list[str]]:
    """Open the genome's store; build it first if it is absent, stale or damaged.

    Returns:
        The store, whether it was built now, and warnings about the genome file.

    Raises:
        InputError: If the file is no genome, or with `strict` if anything is odd about it.
        OutputError: If the store can be written neither beside it nor in the cache folder.
    """
    check_regular(genome)
    store = None if force else find_store(genome, rna).store
    built = store is None
    if store is None:
        with build.one_builder(genome) as alone:
            found = find_store(genome, rna)  # another process may have built it meanwhile
            store, built = found.store, force or found.store is None
            if built:
                for reason in found.reasons:
                    log.warning("%s; the store is built again", reason)
                store = _open_built(_build(genome, found.rna if rna is None else rna, strict, progress, alone))
    assert store is not None
    warnings = _warnings(genome, store.contigs, store.index.warnings, store.index.cut_line, strict)
    return store, built, warnings


def prepare(
    path: str | PathLike[str],
    *,
    force: bool = False,
    strict: bool = False,
    rna: bool | None = None,
    progress: build.Progress | None = None,
) -> PreparedStore:
    """Build the token store of a genome file, unless it is up to date, and say what the file holds.

    Args:
        path: FASTA (plain, gzip or bgzip) or GenBank file.
        force: Build even if the store is up to date.
        strict: Whatever is odd about the file is an error, and nothing is written.
        rna: Read U as T rather than as N; None keeps what the present store does, at first N.
        progress: Called now and then while the file is read.

    Raises:
        InputError: If the file is no genome; the message names line and column.
        OutputError: If the store can be written nowhere.
    """
    began = time.perf_counter()
    genome = input_path(path)
    store, built, warnings = ensure_store(genome, force=force, strict=strict, rna=rna, progress=progress)
    for warning in warnings:
        log.warning("%s: %s", genome, warning)
    contigs, counted = store.contigs, store.array("counted")
    starts, ends = contigs.offsets, contigs.offsets + contigs.lengths
    other = np.bincount(counted[:, 0], counted[:, 2], len(contigs)).astype(np.int64)
    result = PreparedStore(
        genome=genome,
        directory=store.directory,
        contigs=contigs,
        n=count_inside(store.array("n"), starts, ends) - other,
        soft_masked=count_inside(store.array("soft_mask"), starts, ends),
        counted=counted,
        warnings=warnings,
        built=built,
        seconds=time.perf_counter() - began,
    )
    store.close()
    return result


def _warnings(genome: Path, contigs: Contigs, recorded: list[str], cut_line: bool, strict: bool) -> list[str]:
    warnings = recorded + check_companions(genome, contigs, cut_line=cut_line)
    if strict and warnings:
        raise InputError(f"{genome}: {'; '.join(warnings)} (strict: nothing was written)")
    return warnings


def _build(genome: Path, rna: bool, strict: bool, progress: build.Progress | None, alone: bool) -> Path:
    target = _target(genome)
    if alone:
        build.sweep(target)
    try:
        with build.temporary_sibling(target) as folder:
            scanner = build.scan_into(folder, genome, rna=rna, progress=progress)
            _warnings(
                genome, scanner.contigs, scanner.warnings, scanner.cut_line, strict
            )  # before anything is published
            build.publish(folder, target)
    except DnasmError:
        raise
    except OSError as error:
        free = shutil.disk_usage(target.parent).free
        raise OutputError(
            f"{target}: the token store cannot be written: {error.strerror}. It needs one byte a base, here up to "
            f"about {genome.stat().st_size:,} bytes (more if compressed); {free:,} are free"
        ) from error
    return target


def _target(genome: Path) -> Path:
    beside, cache = layout.store_beside(genome), layout.store_in_cache(genome)
    if _can_make(beside):
        return beside
    if cache is not None:
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            if _can_make(cache):
                log.info("%s: its folder is read-only, so its token store goes to %s", genome, cache)
                return cache
    other = "there is no home folder to put it in" if cache is None else f"nor can {cache.parent}"
    raise OutputError(f"{beside}: cannot be written, {other}; set DNASM_CACHE to a folder that can be")


def _can_make(target: Path) -> bool:
    try:
        with build.temporary_sibling(target):
            return True
    except OSError as error:
        if error.errno in build.READ_ONLY:
            return False
        raise
