"""What a job brings along, and what it may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chronotune.cluster import parcel
from chronotune.cluster.parcel import Order, pack, unpack
from chronotune.config.load import load_recipe
from chronotune.config.recipe import Recipe
from chronotune.errors import InputError, StorageError

PROFILE = {"name": "far", "kind": "existing", "address": "http://127.0.0.1:1", "sweeps": "/mnt/sweeps"}


def _recipe(*overrides: str) -> Recipe:
    return load_recipe("smoke", [f"cluster={json.dumps(PROFILE)}", *overrides])


def test_files_arrive_where_all_nodes_see_them(tmp_path: Path) -> None:
    """Once for each content, however many sweeps name them; what does not exist here is the cluster's own."""
    data = tmp_path / "load.csv"
    data.write_text("time,load\n")
    recipe = _recipe("data.source=file", f"data.path={data}")
    came, sweeps = tmp_path / "came", tmp_path / "shared" / "sweeps"
    came.mkdir()
    order = pack(recipe, f"{sweeps}/mine", came)
    data.unlink()
    there = unpack(Order.read(order.text()), came)
    assert there.data.path is not None
    assert Path(there.data.path).read_text() == "time,load\n"
    assert Path(there.data.path).is_relative_to(sweeps / parcel.SENT)
    assert (Path(there.model.weights) / "model.safetensors").stat().st_size > 1e6
    assert unpack(order, came) == there
    assert len(list((sweeps / parcel.SENT).iterdir())) == 2
    absent = pack(recipe, f"{sweeps}/other", tmp_path / "other")
    assert absent.sent == {"model": "model"}
    assert absent.recipe is not None
    assert absent.recipe["data"]["path"] == str(data)


def test_what_cannot_be_sent_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much, and what only this machine has."""
    for setting in (f"storage=sqlite:///{tmp_path}/study.db", f"search.warm_start=['{tmp_path}', '/nowhere']"):
        with pytest.raises(InputError, match=rf"must be of the cluster, but {tmp_path} is a folder of this machine"):
            pack(_recipe(setting), "/mnt/sweeps/a", tmp_path / "a")
        pack(_recipe(setting), f"{tmp_path}/a", tmp_path / setting[:6])  # the same storage is mounted here
    data = tmp_path / "load.csv"
    data.write_text("time,load\n" * 100)
    both = _recipe("data.source=file", f"data.path={data}")
    together = parcel._size(Path(both.model.weights)) + parcel._size(data)
    monkeypatch.setattr(parcel, "LARGEST", together - 1)
    with pytest.raises(InputError, match=r"model: files that a job brings along may have \d+ MiB together, but"):
        pack(both, "/mnt/sweeps/a", tmp_path / "b")
    monkeypatch.setattr(parcel, "LARGEST", together)
    pack(both, "/mnt/sweeps/a", tmp_path / "c")


def test_mlflow_of_the_folder_is_beside_the_sweeps(tmp_path: Path) -> None:
    """The job's own folder is gone after it; a server stays what it is."""
    lasting = pack(_recipe("tracking.uri=sqlite:///runs.db"), "/mnt/sweeps/a", tmp_path / "a").recipe
    assert lasting is not None
    assert lasting["tracking"]["uri"] == "sqlite:////mnt/sweeps/runs.db"


def test_storage_that_takes_nothing_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing half written stays there."""
    came, sweeps = tmp_path / "came", tmp_path / "sweeps"
    came.mkdir()
    order = pack(_recipe(), f"{sweeps}/mine", came)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(StorageError, match=r"No space left on device.*then submit again"):
        unpack(order, came)
    assert list((sweeps / parcel.SENT).iterdir()) == []
