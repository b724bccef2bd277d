"""Execute a notebook without Jupyter, as `python scripts/notebook.py docs/tutorial.ipynb`.

Code cells run one after another in one namespace and an empty folder; what they print, and their last expression as
text and as a picture, is written back into the file.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def execute(cells: list[Json]) -> None:
    """Run the code cells in place."""
    namespace: Json = {"__name__": "__main__"}
    count = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = run_cell("".join(cell["source"]), namespace, count)


def run_cell(source: str, namespace: Json, count: int) -> list[Json]:
    """Run one cell and return its outputs as nbformat has them."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), namespace)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
    outputs: list[Json] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data: Json = {}
        if hasattr(value, "_repr_png_"):
            data["image/png"] = base64.b64encode(value._repr_png_()).decode() + "\n"
            data["text/plain"] = [f"<{type(value).__name__}>"]
        else:
            data["text/plain"] = repr(value).splitlines(keepends=True)
        outputs.append({"output_type": "execute_result", "execution_count": count, "data": data, "metadata": {}})
    return outputs


def main(path: Path) -> None:
    notebook = json.loads(path.read_text())
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            execute(notebook["cells"])
        finally:
            os.chdir(here)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
