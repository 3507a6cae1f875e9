"""The package as it is sent with a job: what of it is sent, and that it runs without being installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import chronotune
from chronotune.cluster import jobs, package
from chronotune.cluster.parcel import Order
from chronotune.config.cluster import ClusterProfile


def test_what_is_sent_is_the_package_and_asks_for_nothing(tmp_path: Path) -> None:
    """Every module, the shipped folders inside it, no cache, nothing that `export` has made, and no dependencies."""
    own, about = package.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {own.name, about.name}
    sent = {path.relative_to(own).as_posix(): path.read_bytes() for path in own.rglob("*") if path.is_file()}
    source = Path(chronotune.__file__).parent
    modules = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*.py")}
    assert {name: content for name, content in sent.items() if name.endswith(".py")} == modules
    assert {"_shipped/tuning/smoke.yaml", "_shipped/models/tiny/model.safetensors", "page/page.css"} <= sent.keys()
    assert not [name for name in sent if "__pycache__" in name or name.startswith("_shipped/models/.")]
    told = (about / "METADATA").read_text()
    assert "Requires-Dist" not in told
    assert "Name: chronotune" in told


def test_what_is_sent_needs_no_installation(tmp_path: Path) -> None:
    """Folders that only have to be on the path of a process, which then knows its version; Ray installs no wheel."""
    profile = ClusterProfile(name="far", kind="existing", address="http://127.0.0.1:1", sweeps="/mnt/sweeps")
    modules = jobs.environment(profile, Order("/mnt/sweeps/a", None), None, tmp_path)["py_modules"]
    assert all(Path(module).is_dir() for module in modules)
    parts = [tmp_path / f"part-{number}" for number in range(len(modules))]
    for part, module in zip(parts, modules, strict=True):  # each in a folder of its own, as Ray unpacks them
        shutil.copytree(module, part / Path(module).name)
    program = "import chronotune, importlib.metadata as m; print(chronotune.__file__, m.version('chronotune'))"
    path = os.pathsep.join(map(str, parts))
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert version == chronotune.__version__
