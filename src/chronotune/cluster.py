"""Connect to Ray from a profile, and check before the first trial that the cluster can do what will be asked."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chronotune.authtoken import keep_private
from chronotune.config.cluster import ClusterProfile
from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.errors import ChronotuneError, Fault, InputError
from chronotune.lease import identity, is_alive, is_here, is_holder

_HIDE_GPUS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""A worker that asked for no GPU sees none; else Ray leaves it all of them, and all trials train on the first."""

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output engine prints even when it is told to be silent
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers keep the working directory, relative paths keep their meaning
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the record, not files of Tune's
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial's result has a reason and no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    **_HIDE_GPUS,
}

_LONGEST_FOLDER = 39
"""Bytes of a session folder's path: Ray adds 64 for its sockets, and the shortest limit, macOS's, is 103 for all."""

_ANSWER_SECONDS = 120
"""How long a node may take to start a worker and to read one file."""

Resources = dict[str, float]
"""What a node has, by Ray's names: CPU, GPU."""


@contextmanager
def connected(profile: ClusterProfile) -> Iterator[None]:
    """A Ray session by `profile`; a local one is shut down at the end and its folder removed.

    Raises:
        ChronotuneError: Ray cannot be started, or does not answer.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield  # somebody else's session, e.g. a notebook's or a test's
        return
    folder = _session_folder(Path(tempfile.gettempdir())) if profile.kind == "local" else None
    try:
        _connect(profile, folder)
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _session_folder(parent: Path) -> Path:
    """A new folder for a local Ray session, which carries its owner's identity; those of dead ones are removed.

    Ray puts sockets into it, whose paths have a short limit: where `parent` is too long, it is made in /tmp.
    """
    short = Path("/tmp")  # mkdtemp chooses the name and keeps others out
    if len(os.fsencode(parent / "ct-12345678")) > _LONGEST_FOLDER and short.is_dir():
        parent = short
    for owner in parent.glob("ct-*/owner.json"):
        if _is_dead(owner):
            shutil.rmtree(owner.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="ct-", dir=parent))
    (folder / "owner.json").write_text(json.dumps(identity()))
    return folder


def _is_dead(owner: Path) -> bool:
    """Whether the file names a process of this host that is gone; those of other hosts cannot be seen from here."""
    try:
        holder = json.loads(owner.read_text())
    except (OSError, ValueError):
        return False
    return is_holder(holder) and is_here(holder) and not is_alive(holder)


def _connect(profile: ClusterProfile, folder: Path | None) -> None:
    import ray

    quiet: dict[str, Any] = {"configure_logging": True, "logging_level": "error", "log_to_driver": False}
    try:
        if profile.kind == "local":  # said explicitly, else RAY_ADDRESS decides
            keep_private()  # the mode is Ray's own default here: set after its import, it would be seen by half of it
            options = {"address": "local", "num_cpus": usable_cpus(), "_temp_dir": str(folder)}
            ray.init(include_dashboard=False, **options, **quiet)
        else:
            _refuse_client()
            ray.init(address=profile.address, runtime_env={"env_vars": _HIDE_GPUS}, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ChronotuneError(_no_answer(profile, reason)) from error


def _refuse_client() -> None:
    """Ray prefers RAY_ADDRESS to address: auto, also when it names a client's."""
    if "://" in (address := os.environ.get("RAY_ADDRESS", "")):
        raise InputError(
            f"RAY_ADDRESS: must be HOST:6379, as Ray's client cannot drive a sweep, but is {address}. "
            f"Unset it, and run chronotune on a node of the cluster"
        )


def _no_answer(profile: ClusterProfile, reason: str) -> str:
    if profile.kind == "local":
        return (
            f"Ray must start on this machine, but it does not: {reason}. "
            f"See that {tempfile.gettempdir()} has space, or name another short folder in TMPDIR"
        )
    return (
        f"Ray must answer at {profile.address}, but it does not: {reason}. "
        f"Check the address in the cluster profile {profile.name!r}, or use cluster=local"
    )


def usable_cpus(control_groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use: its affinity, capped by its container's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _quota(control_groups)) + 1e-9))


def _quota(control_groups: Path) -> float:
    """How many cores' time a container may take (cgroup v2, else v1); infinite without a limit."""
    version_1 = control_groups / "cpu"
    try:
        if (unified := control_groups / "cpu.max").exists():
            quota, period = map(float, unified.read_text().replace("max", "inf").split())
        else:
            quota, period = (float((version_1 / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def gpus_per_trial(profile: ClusterProfile) -> float:
    """GPUs of one trial; where the profile leaves it open, 1 if the connected Ray sees any, else 0."""
    if profile.gpus_per_trial is not None:
        return profile.gpus_per_trial
    return float(any(node.get("GPU", 0) >= 1 for node in _nodes().values()))


def slots(profile: ClusterProfile) -> int:
    """How many trials fit at the same time on the nodes that are there now."""
    fit = sum(_fit_by_node(profile))
    return min(fit, profile.max_concurrent or fit)


def threads_of_one_node(profile: ClusterProfile) -> int:
    """CPU threads for work that goes on alone: all that trials may use on the smallest node on which one fits."""
    fit = min(filter(None, _fit_by_node(profile)), default=1)
    return min(fit, profile.max_concurrent or fit) * profile.cpus_per_trial


def _nodes() -> dict[str, Resources]:
    """What each living node has, by its id."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _fit_by_node(profile: ClusterProfile) -> list[int]:
    gpus = gpus_per_trial(profile)
    return [_fit(node, profile.cpus_per_trial, gpus) for node in _nodes().values()]


def _fit(node: Resources, cpus: int, gpus: float) -> int:
    """How many trials fit on a node; a fraction of a GPU must be free on one GPU."""
    fit = _times(node.get("CPU", 0), cpus)
    have = node.get("GPU", 0)
    if gpus >= 1:
        fit = min(fit, _times(have, gpus))
    elif gpus > 0:
        fit = min(fit, int(have) * _times(1, gpus))
    return fit


def _times(whole: float, part: float) -> int:
    return math.floor(whole / part + 1e-9)  # 1 / 0.2 must be 5, whatever its rounding


def preflight(recipe: Recipe, directory: Path | None = None) -> None:
    """Find out before the first trial what would otherwise fail at the thirtieth. Needs a connected Ray.

    Args:
        recipe: What will be asked of the cluster.
        directory: The sweep's folder, which need not exist yet and which all nodes must be able to read.

    Raises:
        InputError: Everything that is missing, at once.
    """
    shared = _unshared(recipe.cluster, directory) if directory else []
    faults = [*_resources(recipe.cluster), *shared, *_adapters(recipe)]
    if faults:
        raise InputError(faults)


def _resources(profile: ClusterProfile) -> list[Fault]:
    if slots(profile) >= 1:
        return []
    nodes, gpus = list(_nodes().values()), gpus_per_trial(profile)
    most = max(nodes, key=lambda node: (node.get("GPU", 0) if gpus else 0, node.get("CPU", 0)), default={})
    wanted = f"{profile.cpus_per_trial} CPU and {gpus:g} GPU"
    found = f"the largest of {len(nodes)} has {most.get('CPU', 0):g} CPU and {most.get('GPU', 0):g} GPU"
    remedy = "Lower cluster.cpus_per_trial or cluster.gpus_per_trial, or add a larger node"
    return [Fault(f"cluster {profile.name}", "", f"a trial needs {wanted} on one node, but {found}", remedy)]


def _unshared(profile: ClusterProfile, directory: Path) -> list[Fault]:
    """A fault for each other node that cannot read what is written into the sweep's folder."""
    import ray

    others = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    others.pop(ray.get_runtime_context().get_node_id(), None)
    if not others:
        return []
    folder = next(path for path in (directory.resolve(), *directory.resolve().parents) if path.is_dir())
    where, remedy = f"cluster {profile.name}", "Put the sweep's folder on storage that all nodes mount at the same path"
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".chronotune-") as probe:
            probe.write("shared")
            probe.flush()
            os.fsync(probe.fileno())
            unread = _unread(list(others), Path(probe.name))
    except OSError as error:
        return [Fault(where, "", f"the folder {folder} must be writable, but is not: {error.strerror}", remedy)]
    rules = {
        f"node {others[node]['NodeManagerHostname']} must be able to read {folder}, but: {why}"
        for node, why in unread.items()
    }
    return [Fault(where, "", rule, remedy) for rule in sorted(rules)]


def _unread(nodes: list[str], file: Path) -> dict[str, str]:
    """Why `file` cannot be read, by the nodes where it cannot."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_why_unreadable)
    asked = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(file)
        for node in nodes
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    reasons = {}
    for node, answer in asked.items():
        try:
            reasons[node] = ray.get(answer, timeout=0.1)
        except ray.exceptions.RayError as error:
            reasons[node] = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return {node: reason for node, reason in reasons.items() if reason}


def _why_unreadable(file: Path) -> str:
    """Runs on another node; empty when all is well."""
    try:
        return "" if file.read_text() == "shared" else "it holds something else there"
    except OSError as error:
        return error.strerror or type(error).__name__


def _adapters(recipe: Recipe) -> list[Fault]:
    if "lora" not in extremes(recipe.search_space.mode) or importlib.util.find_spec("peft"):
        return []
    rule = "LoRA trials need the package peft, but it is not installed"
    return [Fault("search_space", "mode", rule, "Run `pip install peft`, or --set search_space.mode=full")]
