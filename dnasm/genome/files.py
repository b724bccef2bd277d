"""Opening what users hand in: plain, gzip or bgzip bytes, and lines of text with their numbers.

Every failure becomes one `InputError` that names the file and what to do; nothing here reads a file into memory.
"""

import errno
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from dnasm.errors import InputError
from dnasm.resources import locate

BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends every whole bgzip file."""

MAX_LINE = 64 << 20
"""Longest line of a table that is read, so that a file without line ends cannot fill the memory."""

MAX_DIGITS = 18
"""Digits of a coordinate: more do not fit 64 bits."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_GZIP = b"\x1f\x8b"

_OTHER_FORMATS = {
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "xz -d"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"PK\x03\x04": ("zip", "unzip"),
}


@runtime_checkable
class ByteSource(Protocol):
    """What the readers need of an open file."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def input_path(path: str | PathLike[str]) -> Path:
    """Turn what a user wrote into a path; `dnasm:NAME` is a file that ships with dnasm.

    Raises:
        InputError: If dnasm ships no such file.
    """
    return locate(Path(path) if isinstance(path, PathLike) else path)


def check_regular(path: Path) -> os.stat_result:
    """Refuse what is missing, unreadable, empty or no regular file.

    Raises:
        InputError: Says which of these it is.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        folder = path.parent
        hint = f"; the folder {folder} does not exist either" if not folder.is_dir() else ""
        raise InputError(f"{path}: there is no such file{hint}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be looked at: {error.strerror}") from error
    if stat.S_ISDIR(info.st_mode):
        raise InputError(f"{path}: is a folder; name a file in it")
    if not stat.S_ISREG(info.st_mode):
        raise InputError(f"{path}: is a pipe or device, which can be read only once; write it to a file first")
    if info.st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); was the copy or download interrupted?")
    return info


def open_bytes(path: Path) -> "InputBytes":
    """Open a plain, gzip or bgzip file for reading once from its first byte.

    Raises:
        InputError: If it cannot be opened, is compressed in another way, or is a bgzip file that was cut off.
    """
    try:
        raw = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        head = raw.read(18)
        _refuse_other_formats(path, head)
        if is_bgzip(head):
            _check_bgzip_end(path, raw)
        raw.seek(0)
    except BaseException:
        raw.close()
        raise
    if head.startswith(_GZIP):
        return InputBytes(str(path), gzip.GzipFile(fileobj=io.BufferedReader(raw, 1 << 20)), raw)
    return InputBytes(str(path), raw, raw)


def open_standard_input() -> "InputBytes":
    """Read standard input, plain or gzip; blocks are handed on as they come."""
    stream: Any = sys.stdin.buffer
    if stream.peek(2)[:2] == _GZIP:
        return InputBytes("standard input", gzip.GzipFile(fileobj=stream))
    return InputBytes("standard input", _AsItComes(stream))


class _AsItComes:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        data: bytes = self._stream.read1(size)
        return data

    def close(self) -> None:
        """Standard input stays open."""


def is_bgzip(head: bytes) -> bool:
    """Whether the first 18 bytes of a file are those of bgzip (gzip in blocks, with the extra field `BC`)."""
    return head.startswith(_GZIP + b"\x08\x04") and head[12:14] == b"BC"


def _refuse_other_formats(path: Path, head: bytes) -> None:
    for magic, (name, command) in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is compressed with {name}; run `{command}` on it, or recompress it with bgzip")


def _check_bgzip_end(path: Path, raw: io.FileIO) -> None:
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - len(BGZF_END)))
    if raw.read(len(BGZF_END)) != BGZF_END:
        raise InputError(f"{path}: lacks the block that ends a bgzip file: it was cut off; copy or download it again")


class InputBytes:
    """Bytes to be read once, whose failures name the file."""

    def __init__(self, name: str, source: ByteSource, raw: BinaryIO | io.FileIO | None = None) -> None:
        self.name = name
        self._source = source
        self._raw = raw
        self._position = 0
        self._head = b""

    def peek(self) -> bytes:
        """The first bytes, which the next `read` gives again."""
        self._head = self._head or self.read(1 << 16)
        return self._head

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; none at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        try:
            data = self._source.read(size)
        except EOFError:
            raise InputError(f"{self.name}: the gzip data end early, {self._place}: copy it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{self.name}: the gzip data are damaged {self._place} ({error}); copy it again"
            ) from error
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        self._position += len(data)
        return data

    @property
    def _place(self) -> str:
        return f"after {self._position:,} bytes of text"

    @property
    def consumed(self) -> int:
        """Bytes of the file on disk that were read so far, for a progress bar."""
        return self._raw.tell() if self._raw is not None else self._position

    def close(self) -> None:
        """Close the file."""
        self._source.close()
        if self._raw is not None:
            self._raw.close()

    def __enter__(self) -> "InputBytes":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def lines(source: InputBytes) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, from 1, without its end; CRLF and a byte order mark are dropped.

    Bytes that are no UTF-8 survive as surrogates, so that a line can be written back as it was.

    Raises:
        InputError: If a line is longer than `MAX_LINE`, or the file cannot be read to its end.
    """
    number, rest = 0, b""
    while chunk := _read_after(source, number):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield number, _text(line, number)
        if len(rest) > MAX_LINE:
            raise InputError(f"{source.name}:{number + 1}: line longer than {MAX_LINE:,} bytes; this is no such table")
    if rest:
        yield number + 1, _text(rest, number + 1)


def _read_after(source: InputBytes, number: int) -> bytes:
    try:
        return source.read(1 << 20)
    except InputError as error:
        raise InputError(f"{error} (after line {number:,})") from error


def _text(line: bytes, number: int) -> str:
    if number == 1:
        line = line.removeprefix(BYTE_ORDER_MARK)
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def place_of(path: Path, offset: int) -> tuple[int, int]:
    """Line and column, from 1, of byte `offset` of the text; reads the file again up to there."""
    line, column = 1, 1
    with open_bytes(path) as source:
        while offset > 0 and (chunk := source.read(min(offset, 1 << 20))):
            line += chunk.count(b"\n")
            newline = chunk.rfind(b"\n")
            column = column + len(chunk) if newline < 0 else len(chunk) - newline
            offset -= len(chunk)
    return line, column
