"""A wheel of chronotune as it is installed here, for a cluster's nodes.

Built from the installed files, with no build tool and no network. It names no dependencies: those are on the nodes.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from chronotune import __version__
from chronotune.catalog import FOLDERS, shipped_root

_WHEEL = "Wheel-Version: 1.0\nGenerator: chronotune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

_SHIPPED = (".yaml", ".md", ".json", ".safetensors", ".txt", ".yml")

_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(folder: Path) -> Path:
    """Write the wheel into `folder`; its build tag is a hash of its contents."""
    about = f"chronotune-{__version__}.dist-info"
    files = dict(_contents())
    files[f"{about}/METADATA"] = _metadata().encode()
    files[f"{about}/WHEEL"] = _WHEEL.encode()
    tag = hashlib.sha256(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    path = folder / f"chronotune-{__version__}-0{tag[:12]}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return path


def unpacked(folder: Path) -> list[Path]:
    """The wheel's contents as folders in `folder`: the package, and what tells its version.

    Ray takes them as they are. A wheel it would let pip install on each node, without waiting for another that does so
    there: on a node that joins, the environments of job and workers begin at once, one removes what the other has
    installed, and every worker that is sent there fails.
    """
    with zipfile.ZipFile(build(folder)) as archive:
        archive.extractall(folder / "unpacked")
    return sorted((folder / "unpacked").iterdir())


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
    try:
        lines = str(metadata.metadata("chronotune")).splitlines()
    except metadata.PackageNotFoundError:
        lines = ["Metadata-Version: 2.4", "Name: chronotune", f"Version: {__version__}"]
    header = lines[: lines.index("")] if "" in lines else lines
    return (
        "\n".join(line for line in header if line.startswith(("Metadata-", "Name", "Version", "Requires-Python")))
        + "\n"
    )


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
