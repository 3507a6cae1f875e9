"""The package as it is sent with a job: what is built of it, and that it runs without being installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import chronotune
from chronotune.cluster import jobs, wheel
from chronotune.cluster.parcel import Order
from chronotune.config.cluster import ClusterProfile


def test_the_wheel_is_named_by_its_contents_and_asks_for_nothing(tmp_path: Path) -> None:
    """The same bytes, the same name, no dependencies."""
    first = wheel.build(tmp_path)
    assert wheel.build(tmp_path) == first
    with zipfile.ZipFile(first) as opened:
        names = opened.namelist()
        about = opened.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "Requires-Dist" not in about
    assert "Name: chronotune" in about
    assert not [name for name in names if "__pycache__" in name or name.startswith("chronotune/_shipped/models/.")]


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
