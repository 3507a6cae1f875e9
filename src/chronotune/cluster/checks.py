"""Find out before the first trial what would otherwise fail at the thirtieth."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from chronotune.cluster.capacity import gpus_per_trial, nodes, slots, wanted, with_gpu_share
from chronotune.cluster.need import Need, need_of
from chronotune.cluster.survey import CHECKPOINTS, FOLDER, SHARE, Node, survey
from chronotune.config.cluster import ClusterProfile
from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.config.storage import expanded, file_of
from chronotune.errors import ChronotuneError, Fault, InputError
from chronotune.memory import ERROR

log = logging.getLogger("chronotune.cluster")

_OF_A_NETWORK = (
    *("nfs", "cifs", "smb", "lustre", "ceph", "gluster", "9p", "beegfs", "gpfs", "afs", "virtiofs"),
    *(
        "fuse.ceph",
        "fuse.gluster",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.mount-s3",
        "fuse.gcsfuse",
        "fuse.juicefs",
        "fuse.rclone",
    ),
)
"""Beginnings of the kinds of file systems whose data is not on this machine's disk."""


def preflight(recipe: Recipe, directory: Path | None = None) -> Recipe:
    """See that the connected Ray can do what will be asked of it.

    Args:
        recipe: What will be asked.
        directory: The sweep's folder, which need not exist yet and which all nodes must be able to read and write.

    Returns:
        The recipe as its trials run: with a number where `cluster.gpus_per_trial` is auto.

    Raises:
        InputError: Everything that is missing, at once.
    """
    where = f"cluster {recipe.cluster.name}"
    found, silent = survey(recipe, directory)
    gpu_memory = min((memory for node in found for memory in node.report["gpus"]), default=None)
    needs, unknown = _needs(recipe)
    need = needs[True].whole if needs else None
    shared = recipe.model_copy(update={"cluster": with_gpu_share(recipe.cluster, need, gpu_memory)})
    faults = [*_resources(shared.cluster), *silent, *_apart(found, where), *_versions(found, recipe, where), *unknown]
    faults += [*_models(found, where), *_memory(shared.cluster, found, needs, where)]
    faults += [*_survival(recipe, directory, where), *_adapters(recipe)]
    if faults:
        raise InputError(list(dict.fromkeys(faults)))
    _tell_of_tracking(recipe)
    return shared


def _apart(found: Sequence[Node], where: str) -> Iterator[Fault]:
    """Nodes that do not see the driver's files, or whose files the driver does not see."""
    for node in found:
        for what, told in node.report["places"].items():
            rules = {
                "unread": f"must be able to read what is written into {what} elsewhere, but",
                "unwritten": f"must be able to write into {what}, but",
                "unseen": f"must write {what} where the others read it, but the driver's node does not see it",
            }
            yield from (
                Fault(where, "", f"node {node.name} {rule}: {why}", SHARE[what])
                for key, rule in rules.items()
                if (why := told.get(key))
            )


def _versions(found: Sequence[Node], recipe: Recipe, where: str) -> Iterator[Fault]:
    """Objects travel between the nodes, and the same seed must train the same."""
    ours = found[0].report["versions"] if found else {}
    optional = set() if _asks_for_adapters(recipe) else {"peft"}
    for node in found[1:]:
        for package, version in node.report["versions"].items():
            if (
                package in optional
                or ours[package] is None
                or _public(package, version) == _public(package, ours[package])
            ):
                continue
            told = "it is missing there" if version is None else f"it has {version}"
            rule = f"node {node.name} must have {package} {ours[package]} as the driver, but {told}"
            yield Fault(where, "", rule, _install(package, ours[package]))


def _public(package: str, version: str | None) -> str | None:
    """A version without what may differ: the patch of Python, and for which device torch was built."""
    if version is None:
        return None
    return ".".join(version.split(".")[:2]) if package == "python" else version.partition("+")[0]


def _install(package: str, version: str | None) -> str:
    if package == "python":
        return f"Start Ray there with Python {_public(package, version)}"
    if package == "chronotune":
        return "Install its wheel there, or submit from outside (kind: existing sends it)"
    return (
        f"Run `pip install {package}=={_public(package, version)}` there, or name it in the profile's environment.pip"
    )


def _models(found: Sequence[Node], where: str) -> Iterator[Fault]:
    for node in found:
        if why := node.report["model"]:
            remedy = "Put the weights on storage that all nodes mount, or fetch them there"
            yield Fault(where, "", f"node {node.name} must be able to load the model, but: {why}", remedy)


def _resources(profile: ClusterProfile) -> list[Fault]:
    if slots(profile) >= 1:
        return []
    there, gpus = list(nodes().values()), gpus_per_trial(profile)
    most = max(there, key=lambda node: (node.get("GPU", 0) if gpus else 0, node.get("CPU", 0)), default={})
    needed = f"{profile.cpus_per_trial} CPU and {gpus:g} GPU"
    found = f"the largest of {len(there)} has {most.get('CPU', 0):g} CPU and {most.get('GPU', 0):g} GPU"
    keys = "cluster.cpus_per_trial or cluster.gpus_per_trial"
    if profile.memory_per_trial is not None:
        needed += f" and {profile.memory_per_trial:g} GB"
        found += f" and {most.get('memory', 0) / 1e9:.3g} GB"
        keys = f"cluster.memory_per_trial, {keys}"
    rule = f"a trial needs {needed} on one node, but {found}"
    return [Fault(f"cluster {profile.name}", "", rule, f"Lower {keys}, or add a larger node")]


def _needs(recipe: Recipe) -> tuple[dict[bool, Need], list[Fault]]:
    """Of the largest trial, on a CPU and on a GPU; empty where the model's files tell nothing."""
    try:
        return {on_gpu: need_of(recipe, on_gpu=on_gpu) for on_gpu in (False, True)}, []
    except ChronotuneError as error:
        rule, remedy = f"the model must be found by the driver, but: {error}", "Fetch it, or name another"
        return {}, [Fault("recipe", "model", rule, remedy)]
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return {}, []


def _memory(profile: ClusterProfile, found: Sequence[Node], needs: Mapping[bool, Need], where: str) -> Iterator[Fault]:
    """Refuse only what cannot be: the engine computes fewer windows at once where memory is short."""
    gpus = gpus_per_trial(profile)
    if not needs:
        return
    least = needs[gpus > 0].least * (1 - ERROR)
    for node in found:
        have, what = _share_of(node, profile, gpus)
        if have is not None and least > have:
            rule = (
                f"the largest trial is predicted to need {least / 1e9:.3g} GB even window by window, but on node "
                f"{node.name} its share of the {what} is {have / 1e9:.3g} GB"
            )
            yield Fault(where, "", rule, "Run fewer trials side by side, or search shorter contexts or lora")


def _share_of(node: Node, profile: ClusterProfile, gpus: float) -> tuple[float | None, str]:
    """Bytes that one trial may take there; None where none runs, or nobody knows."""
    taken = wanted(profile)
    if gpus > 0:
        memories = node.report["gpus"]
        return (min(memories) * min(1.0, gpus), "GPU") if memories else (None, "GPU")
    fit = int(node.resources.get("CPU", 0) // taken["CPU"])
    if not fit or not node.report["memory"]:
        return None, "machine"
    return node.report["memory"] / min(fit, profile.max_concurrent or fit), "machine"


def _survival(recipe: Recipe, directory: Path | None, where: str) -> list[Fault]:
    """All that a resume reads must outlive what the profile says; the folder names even a study in a database."""
    if recipe.cluster.survives == "driver" or directory is None:
        return []
    place, database = recipe.cluster.checkpoints, file_of(expanded(recipe.storage or ""))
    needed = {FOLDER: directory, CHECKPOINTS: None if place is None or "://" in place else Path(place)}
    kinds = {path: _file_system(path.resolve()) for path in {**needed, "storage": database}.values() if path}
    remedy = "Put it on a network's storage; checkpoints may also be in an object store, the study in a database"
    return [
        Fault(where, "survives", f"head needs {path} off this machine's disk, but its file system is {kind!r}", remedy)
        for path, kind in kinds.items()
        if not kind.startswith(_OF_A_NETWORK)
    ]


def _file_system(path: Path) -> str:
    """The kind of file system that a path is on."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in (path, *path.parents) if folder in mounts), "unknown")


def _asks_for_adapters(recipe: Recipe) -> bool:
    return "lora" in extremes(recipe.search_space.mode)


def _adapters(recipe: Recipe) -> list[Fault]:
    if not _asks_for_adapters(recipe) or importlib.util.find_spec("peft"):
        return []
    rule = "LoRA trials need the package peft, but it is not installed"
    return [Fault("search_space", "mode", rule, "Run `pip install peft`, or --set search_space.mode=full")]


def _tell_of_tracking(recipe: Recipe) -> None:
    """A server that does not answer stops nothing: the mirror waits for it."""
    address = recipe.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not recipe.tracking.enabled or not address.startswith(("http://", "https://")):
        return
    parts = urlsplit(address)
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), 3
        ).close()
    except OSError as error:
        log.warning("MLflow at %s does not answer (%s); the mirror waits for it", parts.hostname, error)
