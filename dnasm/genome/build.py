"""Making a token store: scan the genome into a temporary sibling, sync it to the disk, rename it into place."""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from dnasm.errors import InputError, OutputError
from dnasm.genome.fasta import FastaScanner
from dnasm.genome.files import ByteSource, open_bytes, sync
from dnasm.genome.genbank import GenBankAsFasta, looks_like_genbank
from dnasm.genome.layout import ARRAYS, INDEX, TOKENS, Fingerprint, Section, StoreIndex
from dnasm.genome.runs import BLOCK

Progress = Callable[[int, int, int], None]
"""Called now and then with the bytes of the file read so far, all of them, and the bases found so far."""

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

log = logging.getLogger(__name__)


def scan_into(directory: Path, genome: Path, *, rna: bool = False, progress: Progress | None = None) -> FastaScanner:
    """Read a genome file and write its store's three files into `directory`, synced to the disk.

    Raises:
        InputError: If the file is no genome, or changed while it was read.
        OSError: If the store cannot be written.
    """
    before = Fingerprint.of(genome)
    with open_bytes(genome) as source:
        genbank = looks_like_genbank(source.peek())
        text: ByteSource = GenBankAsFasta(genome, source) if genbank else source
        scanner = FastaScanner(genome, rna=rna, lines_known=not genbank)
        with _synced(directory / TOKENS) as file:
            bases = 0
            for tokens in scanner.read(text):
                file.write(tokens.data)
                bases += tokens.size
                if progress is not None:
                    progress(source.consumed, before.size, bases)
    if changed := before.difference(Fingerprint.of(genome)):
        raise InputError(f"{genome}: {changed} while it was being read; wait until it is complete, then start again")
    arrays = _write_arrays(directory / ARRAYS, scanner)
    index = StoreIndex(
        source=str(genome.resolve()),
        fingerprint=before,
        build=secrets.token_hex(8),
        rna=rna,
        cut_line=scanner.cut_line,
        names=scanner.contigs.names,
        lengths=scanner.contigs.lengths.tolist(),
        arrays=arrays,
        warnings=scanner.warnings,
    )
    with _synced(directory / INDEX) as file:
        file.write(index.to_json().encode())
    return scanner


def _write_arrays(path: Path, scanner: FastaScanner) -> dict[str, Section]:
    n_runs, mask_runs = scanner.n_runs, scanner.mask_runs
    arrays: dict[str, npt.NDArray[np.int64]] = {
        "n": n_runs,
        "soft_mask": mask_runs,
        "n_fence": n_runs[::BLOCK, :1],
        "soft_mask_fence": mask_runs[::BLOCK, :1],
        "counted": scanner.counted,
    }
    sections, offset = {}, 0
    with _synced(path) as file:
        for name, array in arrays.items():
            sections[name] = Section(offset, *array.shape)
            offset = sections[name].end
            file.write(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return sections


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing; on leaving, its bytes are on the disk."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def temporary_sibling(target: Path) -> Iterator[Path]:
    """Make a folder beside `target` to build in; what is left of it afterwards is removed.

    Its name tells host and process, so that `sweep` knows what a killed process left.
    """
    path = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove what killed processes of this host left beside `target`."""
    for entry in os.scandir(target.parent):
        if not (entry.name.startswith(f".{target.name}.") and entry.name.endswith(".tmp")):
            continue
        host, pid = entry.name[len(target.name) + 2 :].rsplit(".", 3)[:2]
        if host == socket.gethostname() and pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(entry.path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def publish(built: Path, target: Path) -> None:
    """Rename a finished folder into place; one that stands there is moved aside first, and removed.

    Raises:
        OutputError: If something else than a token store stands there.
    """
    if not _is_store_or_absent(target):
        raise OutputError(f"{target}: is no token store of dnasm, so it is not replaced; move it away")
    sync(built)
    for _ in range(10):  # another process may publish between the two renames; its store is as good as ours
        try:
            built.rename(target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = built.with_name(f"{built.name[: -len('.tmp')]}-old.tmp")
        with contextlib.suppress(FileNotFoundError):
            target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    sync(target.parent)


def _is_store_or_absent(target: Path) -> bool:
    try:
        return not set(os.listdir(target)) - {TOKENS, INDEX, ARRAYS}
    except FileNotFoundError:  # also when another process has moved it aside this moment
        return True
    except NotADirectoryError:
        return False


@contextlib.contextmanager
def one_builder(genome: Path) -> Iterator[bool]:
    """Let one process at a time build this genome's store, so that ranks of a job do not all do the same work.

    Only saves work: what makes it right is the rename. The lock is on the genome file itself, so that nothing is left
    behind; where the file system cannot lock, or the other takes very long, we go on without it and yield False.
    """
    with genome.open("rb") as file:
        deadline = time.monotonic() + 60 + os.fstat(file.fileno()).st_size / 10e6
        waiting = locked = False
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
                break
            except BlockingIOError:
                if not waiting:
                    log.info("%s: waiting for another process that is preparing it", genome)
                waiting = True
                time.sleep(0.1)
            except OSError:
                break
        yield locked
