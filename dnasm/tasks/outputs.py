"""Checks of the place where a command writes, before it computes."""

import os
import shutil
from pathlib import Path

from dnasm.errors import OutputError


def check_new_folder(path: str, *, force: bool, marker: str) -> Path:
    """Make sure that a folder can be made, and make nothing yet.

    Args:
        path: The folder that the user names.
        force: Whether one that exists may be replaced.
        marker: A file that such a folder holds; `force` replaces no other folder.

    Raises:
        OutputError: If it exists and may not be replaced, or could not be written.
    """
    folder = Path(path)
    if folder.exists() or folder.is_symlink():
        if not folder.is_dir():
            raise OutputError(f"{folder} exists and is no folder; choose another place with --out")
        if any(folder.iterdir()):
            if not force:
                raise OutputError(f"{folder} exists already; choose another place with --out, or pass --force")
            if not (folder / marker).is_file():
                raise OutputError(
                    f"{folder} exists and holds no {marker}, so dnasm did not make it: --force does not replace it; "
                    "choose another place with --out"
                )
    parent = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be made: {parent} is not a folder that you may write to")
    return folder


def check_space(folder: Path, needed: int) -> None:
    """Make sure that the disk below `folder` has room for `needed` bytes.

    Raises:
        OutputError: If not; the message says how much there is.
    """
    parent = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            f"{folder} needs about {needed / 1e9:.2f} GB, the disk at {parent} has {free / 1e9:.2f} GB free"
        )


def make_folder(folder: Path) -> None:
    """Make the folder, in place of what `check_new_folder` allowed to replace."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
