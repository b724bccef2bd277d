"""Where the files that travel with the package lie: `csrc/`, `configs/` and `data/`."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


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
    raise FileNotFoundError(f"dnasm's own file {name!r} is missing from {_PACKAGE}; reinstall the package")
