"""Files that travel with the package: `csrc/`, `configs/` and `data/`.

Wherever a command or a config takes a path, `dnasm:NAME` means such a file: `dnasm:data/README.md`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_PREFIX = "dnasm:"


def resource(name: str) -> Path:
    """Find a folder or file that ships with dnasm, in the installed package or in a checkout.

    Args:
        name: Path below the package, as `configs/demo.yaml`.

    Raises:
        FileNotFoundError: If this installation lacks it.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"dnasm ships no file {name!r} (looked in {_PACKAGE} and beside it)")


def locate(path: str | Path) -> Path:
    """Turn what a user wrote into a path: `dnasm:NAME` is a file that ships with dnasm, all else is taken as it is.

    Raises:
        FileNotFoundError: If dnasm ships no such file.
    """
    text = str(path)
    return resource(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else Path(text)
