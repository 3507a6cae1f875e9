"""What a cluster is counted to hold, and what is found out about it before the first trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from chronotune.cluster import (
    checks,
    gpus_per_trial,
    preflight,
    session,
    slots,
    slots_lately,
    threads_of_one_node,
    threads_of_the_last,
    usable_cpus,
)
from chronotune.config.cluster import ClusterProfile
from chronotune.errors import ChronotuneError, InputError
from chronotune.lease import identity
from chronotune.search import StudySearcher, scheduler
from sweep_parts import new_study, small_recipe

Nodes = Callable[..., None]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Makes Ray tell of nodes with these (CPU, GPU); a dead one is among them."""

    def tell(*sizes: tuple[float, float]) -> None:
        alive = [_node(f"n{number}", True, *size) for number, size in enumerate(sizes)]
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, _node("dead", False, 64, 8)])
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n0"))

    return tell


def _node(name: str, alive: bool, cpus: float, gpus: float) -> dict[str, Any]:
    resources = {"CPU": cpus, "memory": 1e9, **({"GPU": gpus} if gpus else {})}
    return {"NodeID": name, "NodeManagerHostname": name, "Alive": alive, "Resources": resources}


def _profile(**keys: Any) -> ClusterProfile:
    return ClusterProfile(name="mine", **keys)


def test_a_trial_gets_a_gpu_where_there_is_one(nodes: Nodes) -> None:
    """Unless the profile says otherwise."""
    nodes((8, 0), (8, 2))
    assert gpus_per_trial(_profile()) == 1
    assert slots(_profile()) == 2
    assert gpus_per_trial(_profile(gpus_per_trial=0)) == 0
    assert slots(_profile(gpus_per_trial=0)) == 16
    nodes((8, 0))
    assert gpus_per_trial(_profile()) == 0
    assert slots(_profile()) == 8


@pytest.mark.parametrize(
    ("sizes", "keys", "fit"),
    [
        ([(3, 0), (3, 0)], {"cpus_per_trial": 2}, 2),  # not 6 // 2: no trial spans nodes
        ([(8, 0), (1, 1)], {"cpus_per_trial": 2, "gpus_per_trial": 1}, 0),
        ([(8, 1)], {"gpus_per_trial": 0.2}, 5),
        ([(8, 3)], {"gpus_per_trial": 0.6}, 3),  # not 5: a fraction lies on one GPU
        ([(16, 4), (16, 4)], {"gpus_per_trial": 3}, 2),
        ([(8, 0)], {"max_concurrent": 3}, 3),
        ([], {}, 0),
    ],
)
def test_trials_are_counted_by_node(
    nodes: Nodes, sizes: list[tuple[float, float]], keys: dict[str, Any], fit: int
) -> None:
    """As Ray will place them."""
    nodes(*sizes)
    assert slots(_profile(**keys)) == fit


def test_nodes_are_asked_for_once_a_second(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that joined or left count from then on."""
    clock = [5.0]
    monkeypatch.setattr("chronotune.cluster.capacity.time.monotonic", lambda: clock[0])
    nodes((2, 0))
    lately = slots_lately(_profile())
    assert lately() == 2
    nodes((2, 0), (4, 0))
    clock[0] += 0.9
    assert lately() == 2
    clock[0] += 0.2
    assert lately() == 6


def test_threads_are_those_of_one_node(nodes: Nodes) -> None:
    """The final evaluation goes on alone, on whichever node a trial fits."""
    nodes((8, 0), (4, 0), (1, 0))
    assert threads_of_one_node(_profile(cpus_per_trial=2)) == 4
    assert threads_of_one_node(_profile(cpus_per_trial=2, max_concurrent=1)) == 2


def test_threads_are_lent_on_one_node_without_gpus(nodes: Nodes) -> None:
    """Those of its slots by the trials that run; with GPUs, or where others could not use them, none."""
    nodes((8, 0))
    lent = [threads_of_the_last(_profile(cpus_per_trial=2), running) for running in (0, 1, 2, 3, 4)]
    assert lent == [0, 8, 4, 2, 2]
    assert threads_of_the_last(_profile(max_concurrent=1), 1) == 1
    nodes((8, 0), (8, 0))
    assert threads_of_the_last(_profile(), 1) == 0
    nodes((8, 1))
    assert threads_of_the_last(_profile(), 1) == 0


def test_what_fits_nowhere_is_refused_with_the_largest_node(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Totals would have been enough."""
    nodes((2, 0), (3, 0))
    recipe = small_recipe(cluster={"name": "mine", "cpus_per_trial": 4})
    monkeypatch.setattr(checks, "survey", lambda *_: ([], []))
    with pytest.raises(InputError, match="needs 4 CPU and 0 GPU on one node, but the largest of 2 has 3 CPU and 0 GPU"):
        preflight(recipe)


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Affinity, and the quotas of both generations of control groups; never less than one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_cpus(tmp_path) == 6
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("400000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path) == 4
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cpus(tmp_path) == 6
    for quota, cores in {"250000 100000\n": 2, "max 100000\n": 6, "50000 100000\n": 1}.items():
        (tmp_path / "cpu.max").write_text(quota)
        assert usable_cpus(tmp_path) == cores


def test_only_dead_sessions_of_this_host_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container's process is not seen from here, and a folder without an owner is nobody's to judge."""
    dead = {**identity(), "started": 1.0}
    owners = {"dead": dead, "live": identity(), "far": {**dead, "host": "elsewhere", "heartbeat": 0.0}, "none": None}
    monkeypatch.setattr(session, "_LONGEST_FOLDER", 4096)
    for name, owner in owners.items():
        (tmp_path / f"ct-{name}").mkdir()
        if owner:
            (tmp_path / f"ct-{name}/owner.json").write_text(json.dumps(owner))
    (tmp_path / "ct-99999999-old").mkdir()
    new = session._session_folder(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"ct-live", "ct-far", "ct-none", "ct-99999999-old", new.name}
    assert json.loads((new / "owner.json").read_text())["pid"] == os.getpid()


def test_a_long_folder_for_temporary_files_is_avoided(tmp_path: Path) -> None:
    """Sockets have short paths."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    folder = session._session_folder(long)
    try:
        assert len(os.fsencode(folder)) <= session._LONGEST_FOLDER
        assert folder.exists()
    finally:
        (folder / "owner.json").unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    "error",
    [
        OSError("AF_UNIX path length cannot exceed 107 bytes"),
        Exception("The current node timed out during startup. This could happen because"),  # Ray's own, after 30 s
    ],
)
def test_an_error_of_the_system_becomes_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """With what to do on this machine."""

    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ChronotuneError, match=rf"must start on this machine, but it does not: {error} *\. .* TMPDIR"):
        session._connect(_profile(), tmp_path)


def test_workers_start_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default Ray Tune starts one after the other for a searcher that is not its own: an hour for 800 GPUs."""
    from ray.tune.execution.tune_controller import _get_max_pending_trials
    from ray.tune.search import SearchGenerator

    recipe = small_recipe()
    searcher = StudySearcher(new_study(tmp_path), recipe, scheduler(recipe), wanted=4, slots=lambda: 4)
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    assert _get_max_pending_trials(SearchGenerator(searcher)) == 1
    with session.connected(recipe.cluster):
        assert _get_max_pending_trials(SearchGenerator(searcher)) == 200


def test_ray_is_told_what_the_profile_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local whatever RAY_ADDRESS says; on a running cluster, GPUs are hidden there; its client is refused."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options))
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    session._connect(_profile(), tmp_path)
    with pytest.raises(InputError, match="RAY_ADDRESS: must be HOST:6379"):
        session._connect(_profile(kind="here"), None)
    monkeypatch.delenv("RAY_ADDRESS")
    session._connect(_profile(kind="here"), None)
    local, here = asked
    assert local["address"] == "local"
    assert here["address"] == "auto"
    assert here["runtime_env"] == {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}


_SESSION = """
import os, psutil, time, ray
from pathlib import Path
from chronotune.cluster import connected, gpus_per_trial
from chronotune.cluster.survey import _ask
from chronotune.config.cluster import ClusterProfile

init = ray.init
ray.init = lambda **options: init(**{**options, "num_gpus": 1, "num_cpus": 2})
seen = lambda: os.environ.get("CUDA_VISIBLE_DEVICES", "all")
with connected(ClusterProfile(name="here")):
    commands = [" ".join(process.cmdline()[:2]) for process in psutil.Process().children(recursive=True)]
    workers = sum("default_worker.py" in command or command.startswith("ray::IDLE") for command in commands)
    assert gpus_per_trial(ClusterProfile(name="here")) == 1
    hidden = ray.get(ray.remote(num_cpus=1, num_gpus=0)(seen).remote())
    shown = ray.get(ray.remote(num_cpus=1, num_gpus=1)(seen).remote())
    here = ray.get_runtime_context().get_node_id()
    probes = {"one": os.path.split(__file__), "other": ("/", "nowhere")}
    unread = [told["unread"] for told in _ask([here], probes, "{}", time.monotonic() + 60)[here]["places"].values()]
    print([hidden, shown, unread, workers])
"""


def test_a_session_hides_gpus_from_those_who_ask_for_none(tmp_path: Path) -> None:
    """In a real one with a pretended GPU, RAY_ADDRESS set, and a too long TMPDIR; before a task there is no worker."""
    script, long = tmp_path / "shared.py", tmp_path / ("long" * 20)
    script.write_text(_SESSION)
    long.mkdir()
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "TMPDIR": str(long)}
    environment.pop("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", None)
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    unread = ["it holds something else there", "No such file or directory"]
    assert done.stdout.splitlines()[-1] == str(["", "0", unread, 0])


_COLLECTS_MEANWHILE = """
import gc, threading, time
import ray
from chronotune.cluster.session import connected
from chronotune.config.cluster import ClusterProfile

class Cycle:
    def __init__(self, ref):
        self.itself, self.ref = self, ref

def drop_cycles():
    while refs and not over.is_set():
        Cycle(refs.pop())
        time.sleep(0.001)

over = threading.Event()
with connected(ClusterProfile(name="here")):
    refs = [ray.put(number) for number in range(10_000)]
    gc.set_threshold(1)
    beside = threading.Thread(target=drop_cycles, daemon=True)
    beside.start()
left = len(refs)
over.set()
beside.join()
gc.collect()
print(0 < left < 10_000)
"""


def test_a_session_ends_whatever_a_thread_collects_meanwhile(tmp_path: Path) -> None:
    """Ray ends the process, with code 1, when an ObjectRef is collected while it shuts down."""
    script = tmp_path / "collects.py"
    script.write_text(_COLLECTS_MEANWHILE)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True"
