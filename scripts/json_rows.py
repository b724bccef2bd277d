"""One JSON line a row, to standard output and to a file."""

import json
from pathlib import Path
from typing import Any


def emit(row: dict[str, Any], out: Path | None) -> None:
    """Print a row, and append it to `out`."""
    line = json.dumps(row)
    print(line, flush=True)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
