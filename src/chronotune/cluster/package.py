"""chronotune as it is installed here, as folders that a cluster's nodes put on their path.

It names no dependencies: those are on the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from chronotune import __version__
from chronotune.catalog import FOLDERS, shipped_root

_SHIPPED = (".yaml", ".md", ".json", ".safetensors", ".txt", ".yml")

_ABOUT = ("Metadata-", "Name", "Version", "Requires-Python")


def write(folder: Path) -> list[Path]:
    """Write two folders into `folder`: the package, and what tells its version.

    Ray takes them as they are. A wheel it would let pip install on each node, without waiting for another that does so
    there: on a node that joins, the environments of job and workers begin at once, one removes what the other has
    installed, and every worker that is sent there fails.

    Returns:
        The two.
    """
    about = f"chronotune-{__version__}.dist-info"
    for name, content in [*_contents(), (f"{about}/METADATA", _metadata().encode())]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / "chronotune", folder / about]


def _contents() -> Iterator[tuple[str, bytes]]:
    """The package, and the shipped folders inside it as in a released wheel; of models/, only what is shipped."""
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if path.is_file() and "__pycache__" not in inside.parts and inside.parts[0] != "_shipped":
            yield f"chronotune/{inside.as_posix()}", path.read_bytes()
    root = shipped_root()
    for folder in FOLDERS.values():
        for path in sorted((root / folder).rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and path.suffix in _SHIPPED and _is_shipped(inside):
                yield f"chronotune/_shipped/{inside.as_posix()}", path.read_bytes()


def _is_shipped(path: Path) -> bool:
    """Not what `export` has put into models/."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and (path.parts[0] != "models" or len(path.parts) == 2 or path.parts[1] == "tiny")


def _metadata() -> str:
    """The installed package's own, without its dependencies and its README."""
    try:
        lines = str(metadata.metadata("chronotune")).splitlines()
    except metadata.PackageNotFoundError:
        lines = ["Metadata-Version: 2.4", "Name: chronotune", f"Version: {__version__}"]
    header = lines[: lines.index("")] if "" in lines else lines
    return "\n".join(line for line in header if line.startswith(_ABOUT)) + "\n"
