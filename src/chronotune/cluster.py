"""Connect to Ray from a profile, and check before the first trial that the cluster can do what will be asked."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chronotune.config.cluster import ClusterProfile
from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.errors import ChronotuneError, Fault, InputError

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output engine prints even when it is told to be silent
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers keep the working directory, relative paths keep their meaning
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the record, not files of Tune's
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial's result has a reason and no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def connected(profile: ClusterProfile) -> Iterator[None]:
    """A Ray session by `profile`; a local one is shut down at the end and its folder removed."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield  # somebody else's session, e.g. a notebook's or a test's
        return
    folder = _session_folder() if profile.kind == "local" else None
    try:
        _connect(profile, folder)
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _session_folder() -> str:
    """A new folder for a local Ray session, with a short name (Ray puts sockets into it).

    It carries this process's number, so that those which killed processes left behind can be told and removed.
    """
    import psutil

    for old in Path(tempfile.gettempdir()).glob("ct-*-*"):
        number = old.name.split("-")[1]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"ct-{os.getpid()}-")


def _connect(profile: ClusterProfile, folder: str | None) -> None:
    import ray

    quiet = {"configure_logging": True, "logging_level": "error", "log_to_driver": False}
    try:
        if profile.kind == "local":
            ray.init(num_cpus=os.cpu_count(), include_dashboard=False, _temp_dir=folder, **quiet)
        else:
            ray.init(address=profile.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = profile.address or "this machine"
        raise ChronotuneError(
            f"Ray must answer at {where}, but it does not: {str(error).splitlines()[0]}. "
            f"Check the address in the cluster profile {profile.name!r}, or use cluster=local"
        ) from error


def slots(profile: ClusterProfile) -> int:
    """How many trials fit at the same time now."""
    import ray

    have = ray.cluster_resources()
    fit = int(have.get("CPU", 0) // profile.cpus_per_trial)
    if profile.gpus_per_trial:
        fit = min(fit, int(have.get("GPU", 0) // profile.gpus_per_trial))
    return min(fit, profile.max_concurrent or fit)


def preflight(recipe: Recipe) -> None:
    """Find out before the first trial what would otherwise fail at the thirtieth.

    Raises:
        InputError: Everything that is missing, at once.
    """
    faults = [*_resources(recipe.cluster), *_adapters(recipe)]
    if faults:
        raise InputError(faults)


def _resources(profile: ClusterProfile) -> list[Fault]:
    import ray

    if slots(profile) >= 1:
        return []
    have = ray.cluster_resources()
    wanted = f"{profile.cpus_per_trial} CPU and {profile.gpus_per_trial:g} GPU"
    found = f"{have.get('CPU', 0):g} CPU and {have.get('GPU', 0):g} GPU"
    remedy = "Lower cluster.cpus_per_trial or cluster.gpus_per_trial, or add nodes"
    return [Fault(f"cluster {profile.name}", "", f"a trial needs {wanted}, but there are {found}", remedy)]


def _adapters(recipe: Recipe) -> list[Fault]:
    if "lora" not in extremes(recipe.search_space.mode) or importlib.util.find_spec("peft"):
        return []
    rule = "LoRA trials need the package peft, but it is not installed"
    return [Fault("search_space", "mode", rule, "Run `pip install peft`, or --set search_space.mode=full")]
