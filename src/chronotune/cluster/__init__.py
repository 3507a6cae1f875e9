"""Where trials run: the session, what fits on it, what is checked before the first trial, and jobs from outside."""

from __future__ import annotations

from chronotune.cluster.capacity import (
    gpus_per_trial,
    resources_of_trial,
    slots,
    slots_lately,
    threads_of_one_node,
    threads_of_the_last,
    with_gpu_share,
)
from chronotune.cluster.checks import preflight
from chronotune.cluster.session import connected, is_given_up, usable_cpus

__all__ = [
    "connected",
    "gpus_per_trial",
    "is_given_up",
    "preflight",
    "resources_of_trial",
    "slots",
    "slots_lately",
    "threads_of_one_node",
    "threads_of_the_last",
    "usable_cpus",
    "with_gpu_share",
]
