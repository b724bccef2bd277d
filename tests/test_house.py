"""The house rules that a machine can check: sizes of files and functions, and words that have no place here."""

import ast
import subprocess
from pathlib import Path

import pytest

CODE = {".py", ".cu", ".cuh", ".cpp", ".h", ".sh"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


def _tracked(root: Path) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listing.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    return _tracked(root)


def _long_functions(path: Path) -> list[str]:
    source = path.read_text()
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            # A function that is long for a reason says so on its first line: `# long: one row a case`.
            if length > MAX_FUNCTION_LINES and "# long:" not in lines[node.lineno - 1]:
                found.append(f"{path.name}:{node.lineno} {node.name} has {length} lines")
    return found


def test_no_file_is_over_500_lines(tracked: list[Path]) -> None:
    long = {path.name: n for path in tracked if path.suffix in CODE and (n := len(path.read_text().splitlines())) > 500}
    assert not long


def test_no_function_is_over_60_lines(tracked: list[Path]) -> None:
    long = [text for path in tracked if path.suffix == ".py" for text in _long_functions(path)]
    assert not long, "\n".join(long)


def test_the_check_finds_a_long_function(tmp_path: Path) -> None:
    body = "\n".join("    x = 1" for _ in range(MAX_FUNCTION_LINES))
    (tmp_path / "a.py").write_text(f"def f() -> None:\n{body}\n")
    (tmp_path / "b.py").write_text(f"def f() -> None:  # long: one row a case\n{body}\n")
    assert _long_functions(tmp_path / "a.py")
    assert not _long_functions(tmp_path / "b.py")


def test_shipped_data_stays_below_4_megabytes(tracked: list[Path], root: Path) -> None:
    size = sum(path.stat().st_size for path in tracked if path.is_relative_to(root / "data"))
    assert 0 < size <= 4_000_000


def test_floors_hold_and_every_room_is_on_one(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()
    rooms = [p.name for p in (root / "dnasm").iterdir() if p.name not in {"__init__.py", "__main__.py", "__pycache__"}]
    rooms = [name.removesuffix(".py") for name in rooms if name.endswith(".py") or (root / "dnasm" / name).is_dir()]
    missing = [name for name in rooms if f"dnasm.{name}" not in text and not name.startswith(".")]
    assert not missing, f"rooms on no floor: {missing}"
