"""Files that travel with the package: `csrc/`, `configs/` and `data/`.

Wherever a command or a config takes a path, `dnasm:NAME` means such a file: `dnasm:data/README.md`.
"""

from pathlib import Path

from dnasm.errors import InputError

_PACKAGE = Path(__file__).resolve().parent
_PREFIX = "dnasm:"


def resource(name: str) -> Path:
    """Find a folder or file that ships with dnasm, in the installed package or in a checkout.

    Args:
        name: Path below the package, as `configs/demo.yaml`.

    Raises:
        InputError: If dnasm ships no such file.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    shipped = sorted(path.name for root in (_PACKAGE, _PACKAGE.parent) for path in (root / name).parent.glob("*.*"))
    hint = f"; beside it lie {', '.join(shipped)}" if shipped else ""
    raise InputError(f"dnasm ships no file {name!r} (looked in {_PACKAGE} and beside it){hint}")


def locate(path: str | Path) -> Path:
    """Turn what a user wrote into a path: `dnasm:NAME` is a file that ships with dnasm, all else is taken as it is.

    Raises:
        InputError: If dnasm ships no such file.
    """
    text = str(path)
    return resource(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else Path(text)
