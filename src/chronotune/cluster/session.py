"""Connect to Ray as a profile says: start it here, or find the cluster of this machine."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chronotune.authtoken import keep_private
from chronotune.collector import paused
from chronotune.config.cluster import ClusterProfile
from chronotune.errors import ChronotuneError, InputError
from chronotune.lease import identity, is_alive, is_here, is_holder

_HIDE_GPUS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""A worker that asked for no GPU sees none; else Ray leaves it all of them, and all trials train on the first."""

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output engine prints even when it is told to be silent
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers keep the working directory, relative paths keep their meaning
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the record, not files of Tune's
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial's result has a reason and no metric
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # else workers start one after the other; the searcher knows how many fit
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_prestart_worker_first_driver": "0",  # else a worker a core, which no trial can use: Tune asks for others
    **_HIDE_GPUS,
}

_LONGEST_FOLDER = 39
"""Bytes of a session folder's path: Ray adds 64 for its sockets, and the shortest limit, macOS's, is 103 for all."""


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
        with paused():  # else a thread, say the mirror's, may collect an ObjectRef meanwhile: Ray ends the process then
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
            keep_private()
            options = {"address": "local", "num_cpus": usable_cpus(), "_temp_dir": str(folder)}
            ray.init(include_dashboard=False, **options, **quiet)
        else:
            _refuse_client()
            ray.init(address=profile.address or "auto", runtime_env={"env_vars": _HIDE_GPUS}, **quiet)
    except ChronotuneError:
        raise
    except Exception as error:  # Ray raises a plain one when its node is not up in time
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
            f"See that {tempfile.gettempdir()} has space, or name another short folder in TMPDIR; "
            f"on a machine that is very busy, try again"
        )
    return (
        f"Ray must answer at {profile.address or 'an address of this machine'}, but it does not: {reason}. "
        f"Check the address in the cluster profile {profile.name!r}, and RAY_AUTH_TOKEN, or use cluster=local"
    )


def is_given_up() -> bool:
    """Whether Ray moves work away from this process's node; what it cannot tell is no."""
    import ray

    if not ray.is_initialized():
        return False
    with suppress(Exception):  # there is no public way to ask
        return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()
    return False


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
