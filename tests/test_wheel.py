"""The wheel: exactly the package and what is shipped, and both work from it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 12 * 2**20
SHIPPED = "chronotune/_shipped"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this tree, offline."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


def _contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _below(folder: str) -> set[str]:
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    kept = (path.relative_to(ROOT) for path in files if not {"__pycache__", ".DS_Store"} & set(path.parts))
    return {path.as_posix() for path in kept if not any(part.startswith(".") for part in path.parts)}


def _expected() -> set[str]:
    """What must be in the wheel beside its metadata."""
    package = {path.removeprefix("src/") for path in _below("src/chronotune")}
    models = {f"models/{path.name}" for path in (ROOT / "models").glob("*.*") if path.suffix in (".yaml", ".md")}
    weights = {"models/tiny/config.json", "models/tiny/model.safetensors"}
    shipped = _below("tuning") | _below("search_spaces") | _below("cluster") | models | weights
    return package | {f"{SHIPPED}/{path}" for path in shipped}


def test_exact_contents(wheel: Path) -> None:
    """Nothing is missing and nothing else is packed: no export of the user's, no training script, no cache."""
    found = {name for name in _contents(wheel) if ".dist-info/" not in name}
    assert found == _expected()


def test_metadata(wheel: Path) -> None:
    """The licence travels with the wheel, and only one package reaches site-packages."""
    found = _contents(wheel)
    assert [name for name in found if name.endswith(".dist-info/licenses/LICENSE")]
    assert {name.split("/")[0] for name in found if ".dist-info/" not in name} == {"chronotune"}


def test_size(wheel: Path) -> None:
    """The embedded model and data keep the wheel under 12 MiB."""
    assert wheel.stat().st_size < LIMIT


def test_works_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere it finds its shipped files by name, the weights of the embedded model among them."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from pathlib import Path; from chronotune.config.load import load_recipe\n"
        "recipe = load_recipe('quickstart')\n"
        "print(sorted(path.name for path in Path(recipe.model.weights).iterdir()), recipe.model.weights)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split("] ")[0] == "['config.json', 'model.safetensors'"
    assert done.stdout.strip().endswith(f"{SHIPPED}/models/tiny")
