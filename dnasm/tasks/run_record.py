"""`run.json`: what made an output, written beside it by every verb that computes."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dnasm

SCHEMA_VERSION = 1
_PACKAGES = ("torch", "lightning", "numpy", "pysam", "pyfaidx", "safetensors")
_WHOLE_FILE_BYTES = 1 << 28  # above it, hashing the whole file would take longer than many a command
_SAMPLE_BYTES = 1 << 20


def write_run_json(
    path: Path, config: Any, *, inputs: Iterable[str | Path], counts: Mapping[str, Any], started: datetime
) -> None:
    """Write what a later reader needs to know of a command: how it was called, with what, on what, and what came out.

    Args:
        path: The JSON file, `run.json` in a run directory or `OUT.run.json` beside a single output.
        config: The verb's config dataclass, fully resolved.
        inputs: Files that were read; each is recorded with size and hash.
        counts: What was counted, as steps, tokens or skipped records.
        started: When the command began.
    """
    record = {
        "schema_version": SCHEMA_VERSION,
        "argv": sys.argv,
        "folder": os.getcwd(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((now() - started).total_seconds(), 3),
        "versions": versions(),
        "git": git_state(),
        "seed": getattr(config, "seed", None),
        "inputs": [describe_file(Path(name)) for name in inputs],
        "counts": dict(counts),
        "config": asdict(config),
    }
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def now() -> datetime:
    """Time with its zone, so that records of several machines can be compared."""
    return datetime.now(UTC).astimezone()


def versions() -> dict[str, str]:
    """Versions of Python, dnasm and the packages whose numbers could change a result."""
    found = {"python": platform.python_version(), "dnasm": dnasm.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that dnasm runs from, and whether it was changed; None for an installed package."""
    root = Path(dnasm.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def describe_file(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; of its head, middle and tail (1 MiB each) where it is over 256 MiB."""
    if not path.is_file():  # a pipe, or text that was given in place of a file
        return {"path": str(path)}
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE_FILE_BYTES:
            while block := file.read(_SAMPLE_BYTES):
                digest.update(block)
            return {"path": str(path), "bytes": size, "sha256": digest.hexdigest()}
        for offset in (0, size // 2, size - _SAMPLE_BYTES):
            file.seek(offset)
            digest.update(file.read(_SAMPLE_BYTES))
    return {"path": str(path), "bytes": size, "sha256_of_head_middle_tail": digest.hexdigest()}
