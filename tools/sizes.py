"""Print how large modules and functions are, and fail when a module has grown beyond the limit.

python tools/sizes.py [FOLDER ...]        (src when none is given)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

MODULE_LIMIT = 400


class Size(NamedTuple):
    """Lines of one module or function."""

    lines: int
    name: str


def modules(folder: Path) -> list[Size]:
    """All modules below `folder` with their lines, comments and docstrings included."""
    return [Size(len(file.read_text(encoding="utf-8").splitlines()), str(file)) for file in sorted(_files(folder))]


def functions(folder: Path) -> list[Size]:
    """All functions and methods below `folder` with their lines, from `def` to the end."""
    return [size for file in sorted(_files(folder)) for size in _functions(file)]


def report(folder: Path) -> str:
    """A table of median and largest sizes."""
    rows = [("", "count", "median", "largest", "")]
    for title, sizes in (("modules", modules(folder)), ("functions", functions(folder))):
        if sizes:
            middle, largest = median(size.lines for size in sizes), max(sizes)
            rows.append((title, str(len(sizes)), f"{middle:g}", str(largest.lines), largest.name))
    return "\n".join(f"{a:<10}{b:>6}{c:>8}{d:>9}  {e}".rstrip() for a, b, c, d, e in rows)


def too_large(folder: Path) -> list[Size]:
    """Modules above the limit."""
    return [size for size in modules(folder) if size.lines > MODULE_LIMIT]


def main(folders: list[str]) -> int:
    """Print the report of each folder; the exit code says whether all modules keep the limit."""
    code = 0
    for folder in map(Path, folders or ["src"]):
        sys.stdout.write(f"{folder}\n{report(folder)}\n")
        for size in too_large(folder):
            sys.stdout.write(f"{size.name} has {size.lines} lines, but at most {MODULE_LIMIT} are allowed: split it\n")
            code = 1
    return code


def _files(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.py")


def _functions(file: Path) -> Iterator[Size]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield Size(node.end_lineno - node.lineno + 1, f"{file}:{node.lineno} {node.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
