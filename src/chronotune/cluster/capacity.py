"""How many trials fit on the nodes that are there now, and what Ray sets aside for each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from chronotune.config.cluster import ClusterProfile

Resources = Mapping[str, float]
"""What a node has, or a trial wants, by Ray's names: CPU, GPU, memory in bytes."""

ACTOR_NAMES = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}
"""What Ray Tune calls them."""

_LATELY = 1.0
"""Seconds for which an answer about the nodes is good."""

_PARTS = 10_000
"""Ray counts in ten thousandths of a GPU."""


def gpus_per_trial(profile: ClusterProfile) -> float:
    """GPUs of one trial; where the profile leaves it open, 1 if the connected Ray sees any, else 0."""
    if profile.gpus_per_trial is not None and profile.gpus_per_trial != "auto":
        return profile.gpus_per_trial
    return float(any(node.get("GPU", 0) >= 1 for node in nodes().values()))


def wanted(profile: ClusterProfile) -> dict[str, float]:
    """What one trial takes of its node."""
    memory = profile.memory_per_trial
    taken = {"CPU": float(profile.cpus_per_trial), "GPU": gpus_per_trial(profile)}
    return taken if memory is None else {**taken, "memory": math.floor(memory * 1e9)}


def resources_of_trial(profile: ClusterProfile) -> dict[str, float]:
    """The same in the words of Ray Tune."""
    return {ACTOR_NAMES[name]: amount for name, amount in wanted(profile).items()}


def slots(profile: ClusterProfile) -> int:
    """How many trials fit at the same time on the nodes that are there now."""
    fit = sum(_fit_by_node(profile))
    return min(fit, profile.max_concurrent or fit)


def slots_lately(profile: ClusterProfile) -> Callable[[], int]:
    """`slots` as they were at most a second ago: Ray takes milliseconds to answer, and is asked for every trial."""
    known, asked = 0, -math.inf

    def lately() -> int:
        nonlocal known, asked
        if (now := time.monotonic()) - asked > _LATELY:
            known, asked = slots(profile), now
        return known

    return lately


def threads_of_one_node(profile: ClusterProfile) -> int:
    """CPU threads for work that goes on alone: all that trials may use on the smallest node on which one fits."""
    fit = min(filter(None, _fit_by_node(profile)), default=1)
    return min(fit, profile.max_concurrent or fit) * profile.cpus_per_trial


def threads_of_the_last(profile: ClusterProfile, running: int) -> int:
    """CPU threads for each of the last trials that run; 0 where they train on GPUs, or several nodes would share."""
    places = [fit for fit in _fit_by_node(profile) if fit]
    if running == 0 or len(places) != 1 or gpus_per_trial(profile):
        return 0
    return threads_of_one_node(profile) // running


def with_gpu_share(profile: ClusterProfile, need: int | None, have: int | None) -> ClusterProfile:
    """The profile with a number of GPUs where it says auto: as many trials share one as its memory holds.

    Args:
        profile: Other than auto stays as it is.
        need: Bytes of the largest trial on a GPU; None: unknown, and each trial gets a whole one.
        have: Bytes of the smallest GPU; None: unknown, and each trial gets a whole one where Ray sees any.
    """
    if profile.gpus_per_trial != "auto":
        return profile
    share = gpus_per_trial(profile) if need is None or have is None else _share(max(1, have // need))
    return profile.model_copy(update={"gpus_per_trial": share})


def _share(trials: int) -> float:
    return math.floor(_PARTS / trials) / _PARTS  # rounded up, the last trial would not fit


def nodes() -> dict[str, Resources]:
    """What each living node has, by its id."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _fit_by_node(profile: ClusterProfile) -> list[int]:
    taken = wanted(profile)
    return [_fit(node, taken) for node in nodes().values()]


def _fit(node: Resources, taken: Resources) -> int:
    """How many trials fit on a node; a fraction of a GPU must be free on one GPU."""
    fit = _times(node.get("CPU", 0), taken["CPU"])
    have, gpus = node.get("GPU", 0), taken["GPU"]
    if gpus >= 1:
        fit = min(fit, _times(have, gpus))
    elif gpus > 0:
        fit = min(fit, int(have) * _times(1, gpus))
    if "memory" in taken:
        fit = min(fit, _times(node.get("memory", 0), taken["memory"]))
    return fit


def _times(whole: float, part: float) -> int:
    return math.floor(whole / part + 1e-9)  # 1 / 0.2 must be 5, whatever its rounding
