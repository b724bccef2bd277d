"""Single-file outputs: checked before the work, written beside their place, renamed when they are whole."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dnasm.errors import ConfigError, OutputError

STANDARD_OUTPUT = "-"


def check_new_file(out: str, suffixes: Sequence[str], *, force: bool) -> str:
    """Make sure that a file can be made, and make nothing yet.

    Args:
        out: The file that the user names; `-` is always fine.
        suffixes: Those that are known; `-` among them allows standard output.
        force: Whether a file that exists may be replaced.

    Returns:
        The suffix, in lower case; `-` for standard output.

    Raises:
        ConfigError: If the suffix names no format.
        OutputError: If the file exists or could not be written.
    """
    known = [suffix for suffix in suffixes if out.lower().endswith(suffix)]
    if not known or (out == STANDARD_OUTPUT and STANDARD_OUTPUT not in suffixes):
        raise ConfigError(f"--out {out}: the suffix tells no format; it must be one of {', '.join(suffixes)}")
    if out == STANDARD_OUTPUT:
        return STANDARD_OUTPUT
    path = Path(out)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it with --out")
    if not force and (path.exists() or path.is_symlink()):
        raise OutputError(f"{path} exists already; choose another name with --out, or pass --force")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be made: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be made: you may not write to {folder}")
    return max(known, key=len)


def refuse_same_file(out: str, *inputs: str) -> None:
    """Make sure that --force cannot replace an input.

    Raises:
        ConfigError: If the output is one of the inputs.
    """
    for name in inputs:
        if out != STANDARD_OUTPUT and Path(out).resolve() == Path(name).resolve():
            raise ConfigError(f"--out {out} is an input of this command; choose another name")


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the name at the end, or is removed if an error comes by.

    Raises:
        OutputError: If the disk is full or the file cannot be written.
    """
    target = Path(path)
    # The suffix stays, because some writers choose their format by it.
    draft = target.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.tmp.{target.name}")
    try:
        yield draft
        with draft.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(draft, target)
    except OSError as error:
        if isinstance(error, OutputError) or error.filename not in (None, str(draft), draft):
            raise
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
