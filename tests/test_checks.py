"""What is found out about a cluster before the first trial: everything that is wrong, at once."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from chronotune.catalog import shipped_root
from chronotune.cluster import checks, need, preflight, probe, survey, with_gpu_share
from chronotune.config.cluster import ClusterProfile
from chronotune.config.recipe import Recipe
from chronotune.errors import InputError
from chronotune.forecaster import load_model
from chronotune.memory import ERROR, GPU, Load, predict
from chronotune.trainable import Trainable
from sweep_parts import POINT, small_recipe

TINY = shipped_root() / "models" / "tiny"

Nodes = Callable[..., None]


def _recipe(**cluster: Any) -> Recipe:
    return small_recipe(TINY, cluster={"name": "far", **cluster})


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes other nodes report `changes` beside what a sound one does; the probes that they saw."""
    seen: list[str] = []

    def tell(*changes: dict[str, Any], gpus: int = 0) -> list[str]:
        size = {"CPU": 2.0, "memory": 8e9, **({"GPU": float(gpus)} if gpus else {})}
        alive = [
            {"NodeID": f"n{n}", "NodeManagerHostname": f"n{n}", "Alive": True, "Resources": size}
            for n in range(1 + len(changes))
        ]
        monkeypatch.setattr(ray, "nodes", lambda: alive)

        def ask(names: list[str], probes: dict[str, tuple[str, str]], *_: Any, **__: Any) -> dict[str, Any]:
            seen.extend(place for place, _ in probes.values())
            reports = {}
            for name, change in zip(names, changes, strict=True):
                sound = probe.look(probes, survey.PACKAGES, None, gpus=False)
                for what, differs in change.get("places", {}).items():
                    sound["places"][what] |= differs
                kept = {"places": sound["places"], "versions": {**sound["versions"], **change.get("versions", {})}}
                reports[name] = change if "error" in change else {**sound, **change, **kept}
            return reports

        monkeypatch.setattr(survey, "_ask", ask)
        return seen

    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n0", runtime_env={}))
    return tell


def test_sound_nodes_pass_and_nothing_stays_behind(others: Callable[..., list[str]], tmp_path: Path) -> None:
    """Probes are written on one node and read on another, both ways, beside folders that do not exist yet."""
    seen = others({}, {})
    assert preflight(_recipe(), tmp_path / "sweeps" / "new") == _recipe()
    (tmp_path / "fast").mkdir()
    elsewhere = _recipe(checkpoints=str(tmp_path / "fast" / "new"))
    assert preflight(elsewhere, tmp_path / "sweeps" / "new") == elsewhere
    assert seen == [str(tmp_path), str(tmp_path), str(tmp_path / "fast")]
    assert [path.name for path in tmp_path.rglob("*")] == ["fast"]


def test_checkpoints_that_one_node_does_not_reach_are_told_of(
    others: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first trial is at its first rung; where all nodes are one, it must reach them too."""
    recipe = _recipe(checkpoints=str(tmp_path / "fast"))
    others({"places": {"cluster.checkpoints": {"unread": "ACCESS_DENIED", "written": ""}}})
    with pytest.raises(InputError, match=r"n1 must be able to read .* cluster.checkpoints elsewhere, but: ACCESS_DENI"):
        preflight(recipe, tmp_path / "new")
    others()
    preflight(recipe, tmp_path / "new")
    monkeypatch.setattr(probe, "write", lambda _: ("", "Read-only file system"))
    with pytest.raises(
        InputError, match=r"cluster.checkpoints needs \S+ to be writable, but it is not: Read-only file"
    ):
        preflight(recipe, tmp_path / "new")


def test_all_that_is_wrong_is_said_at_once(
    others: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the node and what to do."""
    elsewhere = {"places": {"the sweep's folder": {"unread": "No such file or directory", "written": ""}}}
    unwritable = {"the sweep's folder": {"unwritten": "Read-only file system", "written": ""}}
    others(
        {"versions": {"torch": "2.1.0+cu118", "peft": None, "python": "3.9.1"}},
        elsewhere,
        {"places": unwritable, "model": "amazon/chronos-2 is neither in the cache nor can it be had"},
        {"error": "nothing came within 25 seconds"},
        {"versions": {"chronotune": None}},
    )
    with pytest.raises(InputError) as caught:
        preflight(_recipe(cpus_per_trial=4, survives="head"), tmp_path / "new")
    text = str(caught.value)
    for told in (
        "a trial needs 4 CPU and 0 GPU on one node, but the largest of 6 has 2 CPU",
        "node n1 must have torch",
        "node n1 must have peft",
        "Start Ray there with Python 3",
        "node n2 must be able to read what is written into the sweep's folder elsewhere, but: No such file",
        "node n3 must be able to write into the sweep's folder, but: Read-only file system",
        "node n3 must be able to load the model, but: amazon/chronos-2 is neither",
        "node n4 must answer, but nothing came within 25 seconds",
        "node n5 must have chronotune",
        "submit from outside (kind: existing sends it)",
        f"survives: head needs {tmp_path / 'new'} off this machine's disk",
    ):
        assert told in text
    assert len(caught.value.faults) == 10, text


def test_a_file_that_only_its_writer_sees_is_told_of(
    others: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that exists on every node, and is another disk on each."""
    removed: list[str] = []
    monkeypatch.setattr(survey, "_remove_there", lambda node, *_: removed.append(node))
    others({"places": {"the sweep's folder": {"written": "only-there"}}})
    with pytest.raises(InputError, match="the driver's node does not see it: No such file"):
        preflight(_recipe(), tmp_path / "new")
    assert removed == ["n1"]


def test_builds_for_other_devices_are_the_same_version(others: Callable[..., list[str]]) -> None:
    """A head without a GPU has another build of torch than its nodes."""
    own = probe.look({}, survey.PACKAGES, None, gpus=False)["versions"]["torch"]
    others({"versions": {"torch": f"{own.partition('+')[0]}+cu126"}})
    preflight(_recipe())


def test_a_trial_that_cannot_fit_a_node_is_refused(others: Callable[..., list[str]]) -> None:
    """By its predicted need window by window; what only needs smaller batches is left to the engine."""
    others({"memory": 1_000_000})
    with pytest.raises(InputError, match=r"predicted to need .* GB even window by window, but on node n1"):
        preflight(_recipe())
    others({"memory": 4_000_000_000})
    preflight(_recipe())


def test_the_record_outlives_the_head_on_a_networks_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The longest mount point decides; a study in a database is found by the folder's files."""
    mounts = [("/", "ext4"), (str(tmp_path), "nfs4"), (str(tmp_path / "scratch"), "xfs")]
    parts = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(checks.psutil, "disk_partitions", lambda **_: parts)  # type: ignore[attr-defined]
    recipe = _recipe(survives="head")
    assert not checks._survival(recipe, tmp_path / "new", "far")
    [fault] = checks._survival(recipe, tmp_path / "scratch" / "new", "far")
    assert "its file system is 'xfs'" in str(fault)
    assert not checks._survival(_recipe(), Path("/new"), "far")
    served = recipe.model_copy(update={"storage": "postgresql+psycopg://database/sweeps"})
    assert checks._survival(served, tmp_path / "scratch" / "new", "far")
    assert not checks._survival(served, tmp_path / "new", "far")
    [fault] = checks._survival(recipe.model_copy(update={"storage": "sqlite:////a.db"}), tmp_path / "new", "far")
    assert "survives: head needs /a.db off this machine's disk" in str(fault)
    for place, faults in {"s3://bucket/sweeps": 0, str(tmp_path / "scratch"): 1, str(tmp_path / "fast"): 0}.items():
        assert len(checks._survival(_recipe(survives="head", checkpoints=place), tmp_path / "new", "far")) == faults


def test_a_silent_tracking_server_is_no_obstacle(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror waits; neither user nor password is told."""
    recipe = small_recipe(TINY, tracking={"enabled": True})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with caplog.at_level(logging.WARNING, "chronotune.cluster"):
            checks._tell_of_tracking(recipe)
        assert "MLflow at 127.0.0.1 does not answer" in caplog.text
        assert "secret" not in caplog.text
        caplog.clear()
        unused.listen()
        checks._tell_of_tracking(recipe)
        assert not caplog.text


def test_the_need_is_what_the_engine_predicts(tmp_path: Path) -> None:
    """From the files of the model alone, without loading it."""
    recipe = _recipe()
    trainable = Trainable(load_model(recipe.model), POINT, recipe.horizon, _cpu())
    whole = Load(context=96, horizon=24, windows=4, rows=3, mode="full", accumulated=True)
    expected = predict(trainable.architecture, whole, GPU).peak * (1 + ERROR)
    assert need.need_of(recipe, on_gpu=True).whole - need._CONTEXT_OF_CUDA == pytest.approx(expected, rel=0.01)
    broken = tmp_path / "model.safetensors"
    header = json.dumps({"__metadata__": {}, "w": {"shape": [2, 3], "dtype": "F32", "data_offsets": [0, 24]}}).encode()
    broken.write_bytes(struct.pack("<Q", len(header)) + header)
    assert need._shapes(broken) == [[2, 3]]


@pytest.mark.parametrize(
    ("wanted", "gb", "have", "share"),
    [
        ("auto", 10, 80, 0.125),
        ("auto", 12, 80, 0.1666),
        ("auto", 30, 80, 0.5),
        ("auto", 90, 80, 1),
        ("auto", None, 80, 1),
        ("auto", 10, None, 1),
        (0.25, 10, 80, 0.25),
        (None, 10, 80, None),
    ],
)
def test_auto_shares_a_gpu_by_predicted_memory(
    wanted: Any, gb: int | None, have: int | None, share: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many trials as its memory holds, one where that is unknown; where the profile says a number, that stays."""
    _see(monkeypatch, gpus=1)
    profile = ClusterProfile(name="mine", gpus_per_trial=wanted)
    assert with_gpu_share(profile, gb, have).gpus_per_trial == share


def test_auto_is_no_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sees none."""
    _see(monkeypatch, gpus=0)
    profile = ClusterProfile(name="mine", gpus_per_trial="auto")
    assert with_gpu_share(profile, 10, None).gpus_per_trial == 0


def _see(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "n", "Alive": True, "Resources": {"CPU": 8, "GPU": gpus}}])


def test_a_containers_limit_is_its_memory(tmp_path: Path) -> None:
    """Of either generation of control groups; `max` and a limit above the machine are none."""
    machine = probe._memory(tmp_path)
    for name, text, memory in (
        ("memory.max", "max\n", machine),
        ("memory/memory.limit_in_bytes", f"{2**62}\n", machine),
        ("memory/memory.limit_in_bytes", "3000000\n", 3_000_000),
        ("memory.max", "2000000\n", 2_000_000),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        assert probe._memory(tmp_path) == memory


def test_a_store_that_does_not_answer_is_not_waited_for(
    others: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute is for all of preflight, where nothing is installed first."""
    assert survey.ANSWER_SECONDS < 30
    hangs = threading.Event()
    monkeypatch.setattr(probe, "write", lambda place: ("", str(hangs.wait(60))))
    monkeypatch.setenv(survey.PATIENCE, "0")
    others({})
    with pytest.raises(InputError, match="to be writable, but it is not: nothing came in time"):
        preflight(_recipe(), tmp_path / "new")
    hangs.set()


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
