"""Find out before the first trial what would otherwise fail at the thirtieth."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from chronotune.cluster import probe
from chronotune.cluster.capacity import gpus_per_trial, nodes, slots, wanted, with_gpu_share
from chronotune.cluster.need import Need, need_of
from chronotune.config.cluster import ClusterProfile
from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.config.storage import expanded, file_of
from chronotune.errors import ChronotuneError, Fault, InputError
from chronotune.memory import ERROR

log = logging.getLogger("chronotune.cluster")

ANSWER_SECONDS = 25
"""How long all nodes together may take to start a worker and look around."""

PATIENCE = "CHRONOTUNE_ANSWER_SECONDS"
"""Environment variable of the driver: another number of seconds, for machines that are busy with something else."""

INSTALL_SECONDS = 600
"""The same where each of them first installs what the job brings along by pip."""

_PACKAGES = ("chronotune", "ray", "torch", "chronos-forecasting", "peft")

_OF_A_NETWORK = ("nfs", "cifs", "smb", "lustre", "ceph", "gluster", "fuse.", "9p", "beegfs", "gpfs", "afs", "virtiofs")
"""Beginnings of the kinds of file systems whose data is not on this machine's disk."""


@dataclass(frozen=True)
class Node:
    """What was found out about one node."""

    name: str
    resources: Mapping[str, float]
    report: Mapping[str, Any]
    """As `probe.look` gives it."""


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
    found, silent = _survey(recipe, directory)
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


def _survey(recipe: Recipe, directory: Path | None) -> tuple[list[Node], list[Fault]]:
    """What every node reports, and a fault for each that does not answer."""
    import ray

    where = f"cluster {recipe.cluster.name}"
    own = ray.get_runtime_context().get_node_id()
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    here = Node(names.pop(own, "here"), nodes().get(own, {}), probe.look({}, _PACKAGES, None, _has_gpus(own)))
    probes, faults = _own_probes(_shared_places(recipe, directory, alone=not names), where)
    try:
        if faults or not names:
            return [here], faults
        reports = _ask(list(names), probes, recipe.model.model_dump_json())
        _read_back(reports)
    finally:
        for place, name in probes.values():
            probe.remove(place, name)
    told = [Node(names[node], nodes().get(node, {}), report) for node, report in reports.items() if "host" in report]
    silent = [_silence(names[node], report["error"], where) for node, report in reports.items() if "error" in report]
    return [here, *told], silent


def _has_gpus(node: str) -> bool:
    return nodes().get(node, {}).get("GPU", 0) > 0


def _shared_places(recipe: Recipe, directory: Path | None, *, alone: bool) -> dict[str, str]:
    """Folders and addresses that all nodes must read and write, by what they are for; a folder exists."""
    if directory is None:
        return {}
    places, checkpoints = {} if alone else {_FOLDER: str(_nearest(directory))}, recipe.cluster.checkpoints
    if checkpoints is not None:
        places[_CHECKPOINTS] = checkpoints if "://" in checkpoints else str(_nearest(Path(checkpoints)))
    return places


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest that exists above it."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def _own_probes(places: Mapping[str, str], where: str) -> tuple[dict[str, tuple[str, str]], list[Fault]]:
    """What the driver writes into each place, as `probe.look` takes it, and what it cannot write and read again."""
    probes, faults = dict[str, tuple[str, str]](), list[Fault]()
    for what, place in places.items():
        name, why = probe.write(place)
        if name:
            probes[what] = place, name
            why = probe.why_unreadable(place, name)
        if why:
            faults.append(Fault(where, "", f"{what} needs {place} to be writable, but it is not: {why}", _SHARE[what]))
    return probes, faults


_FOLDER, _CHECKPOINTS = "the sweep's folder", "cluster.checkpoints"

_SHARE = {
    _FOLDER: "Put the sweep's folder (--dir, or sweeps in the profile) on storage that all nodes mount at the same "
    "path",
    _CHECKPOINTS: "Name a path that all nodes mount, or see the credentials of the store in each node's environment",
}


def _ask(others: Sequence[str], probes: Mapping[str, tuple[str, str]], model: str) -> dict[str, dict[str, Any]]:
    """What `probe.look` returns on each of these nodes; `error` where it does not."""
    import ray

    with _sent_as_source():
        asked = {node: _there(node, probe.look, probes, _PACKAGES, model, _has_gpus(node)) for node in others}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_patience())
        return {node: _answer(reference) for node, reference in asked.items()}


@contextmanager
def _sent_as_source() -> Iterator[None]:
    """Inside the block the probe travels whole, for nodes that lack this package."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(probe)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(probe)


def _there(node: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a node; the reference to what it returns."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    on_it = NodeAffinitySchedulingStrategy(node, soft=False)
    return task.options(scheduling_strategy=on_it).remote(*arguments)


def _patience() -> int:
    import ray

    installs = (ray.get_runtime_context().runtime_env or {}).get("pip")
    return INSTALL_SECONDS if installs else int(os.environ.get(PATIENCE, ANSWER_SECONDS))


def _answer(reference: Any) -> dict[str, Any]:
    import ray

    try:
        report: dict[str, Any] = ray.get(reference, timeout=0.1)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return {"error": f"nothing came within {_patience()} seconds"}
    except ray.exceptions.RayError as error:
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()}
    return report


def _read_back(reports: Mapping[str, dict[str, Any]]) -> None:
    """Read here what each node has written there, and have removed what cannot be seen from here."""
    for node, report in reports.items():
        for told in report.get("places", {}).values():
            if not (written := told["written"]):
                continue
            told["unseen"] = probe.why_unreadable(told["place"], written)
            if told["unseen"]:
                _remove_there(node, told["place"], written)
            else:
                probe.remove(told["place"], written)


def _remove_there(node: str, place: str, name: str) -> None:
    import ray

    with suppress(ray.exceptions.RayError), _sent_as_source():
        ray.get(_there(node, probe.remove, place, name), timeout=5)


def _silence(name: str, why: str, where: str) -> Fault:
    remedy = f"See that node's Ray logs, take the node away, or set {PATIENCE} where nodes are busy"
    return Fault(where, "", f"node {name} must answer, but {why}", remedy)


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
                Fault(where, "", f"node {node.name} {rule}: {why}", _SHARE[what])
                for key, rule in rules.items()
                if (why := told.get(key))
            )


def _versions(found: Sequence[Node], recipe: Recipe, where: str) -> Iterator[Fault]:
    """Objects travel between the nodes, and the same seed must train the same."""
    ours = found[0].report["versions"] if found else {}
    optional = set() if _asks_for_adapters(recipe) else {"peft"}
    for node in found[1:]:
        for package, version in node.report["versions"].items():
            if package in optional or _public(package, version) == _public(package, ours[package]):
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
    needed = {_FOLDER: directory, _CHECKPOINTS: None if place is None or "://" in place else Path(place)}
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
