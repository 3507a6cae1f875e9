"""Ask every node of a cluster what it has, sees and can do, within a time."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronotune.cluster import probe
from chronotune.cluster.capacity import nodes
from chronotune.config.recipe import Recipe
from chronotune.errors import Fault

ANSWER_SECONDS = 28
"""How long it all may take: a quarter of it for the driver's own probes, an eighth at the end to read the nodes'."""

NOTHING_CAME = "nothing came in time"

PATIENCE = "CHRONOTUNE_ANSWER_SECONDS"
"""Environment variable of the driver: another number of seconds, for machines that are busy with something else."""

INSTALL_SECONDS = 600
"""The same where each of them first installs what the job brings along by pip."""

PACKAGES = ("chronotune", "ray", "torch", "chronos-forecasting", "peft")
"""Whose versions are compared."""


@dataclass(frozen=True)
class Node:
    """What was found out about one node."""

    name: str
    resources: Mapping[str, float]
    report: Mapping[str, Any]
    """As `probe.look` gives it."""


def survey(recipe: Recipe, directory: Path | None) -> tuple[list[Node], list[Fault]]:
    """What every node reports, and a fault for each that does not answer."""
    import ray

    where = f"cluster {recipe.cluster.name}"
    own = ray.get_runtime_context().get_node_id()
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    here = Node(names.pop(own, "here"), nodes().get(own, {}), probe.look({}, PACKAGES, None, _has_gpus(own)))
    began, patience = time.monotonic(), _patience()
    probes, faults = _own_probes(
        _shared_places(recipe, directory, alone=not names), where, until=began + patience * 1 / 4
    )
    try:
        if faults or not names:
            return [here], faults
        reports = _ask(list(names), probes, recipe.model.model_dump_json(), until=began + patience * 7 / 8)
        _read_back(reports, until=began + patience)
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
    places, checkpoints = {} if alone else {FOLDER: str(_nearest(directory))}, recipe.cluster.checkpoints
    if checkpoints is not None:
        places[CHECKPOINTS] = checkpoints if "://" in checkpoints else str(_nearest(Path(checkpoints)))
    return places


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest that exists above it."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def _own_probes(places: Mapping[str, str], where: str, until: float) -> tuple[dict[str, tuple[str, str]], list[Fault]]:
    """What the driver writes into each place, as `probe.look` takes it, and what it cannot write and read again."""
    probes, faults = dict[str, tuple[str, str]](), list[Fault]()
    answers = {what: _begun(_probed, place, until) for what, place in places.items()}
    for what, place in places.items():
        name, why = _within(answers[what], until, ("", NOTHING_CAME))
        if name:
            probes[what] = place, name
        if why:
            faults.append(Fault(where, "", f"{what} needs {place} to be writable, but it is not: {why}", SHARE[what]))
    return probes, faults


def _probed(place: str, until: float) -> tuple[str, str]:
    """The name of what was written there, and why it cannot be written and read again."""
    name, why = probe.write(place)
    why = why or probe.why_unreadable(place, name)
    if name and time.monotonic() > until:  # nobody waits any more
        probe.remove(place, name)
    return name, why


def _begun(function: Callable[..., Any], *arguments: Any) -> queue.SimpleQueue[Any]:
    """Where what a function returns will be: a store that does not answer keeps its thread, and nobody waits for it."""
    answer = queue.SimpleQueue[Any]()
    threading.Thread(target=lambda: answer.put(function(*arguments)), daemon=True).start()
    return answer


def _within(answer: queue.SimpleQueue[Any], until: float, otherwise: Any) -> Any:
    try:
        return answer.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        return otherwise


FOLDER, CHECKPOINTS = "the sweep's folder", "cluster.checkpoints"

SHARE = {
    FOLDER: "Put the sweep's folder (--dir, or sweeps in the profile) on storage that all nodes mount at the same path",
    CHECKPOINTS: "Name a path that all nodes mount, or see the credentials of the store in each node's environment",
}


def _ask(
    others: Sequence[str], probes: Mapping[str, tuple[str, str]], model: str, until: float
) -> dict[str, dict[str, Any]]:
    """What `probe.look` returns on each of these nodes; `error` where it does not."""
    import ray

    with _sent_as_source():
        asked = {node: _there(node, probe.look, probes, PACKAGES, model, _has_gpus(node)) for node in others}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=max(0.0, until - time.monotonic()))
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
        return {"error": NOTHING_CAME}
    except ray.exceptions.RayError as error:
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()}
    return report


def _read_back(reports: Mapping[str, dict[str, Any]], until: float) -> None:
    """Read here what each node has written there, and have removed what cannot be seen from here."""
    written = [
        (node, told)
        for node, report in reports.items()
        for told in report.get("places", {}).values()
        if told["written"]
    ]
    answers = [_begun(_taken, told["place"], told["written"]) for _, told in written]
    for (node, told), answer in zip(written, answers, strict=True):
        if why := _within(answer, until, NOTHING_CAME):
            told["unseen"] = why
            _remove_there(node, told["place"], told["written"])


def _taken(place: str, name: str) -> str:
    """Why a node's probe cannot be read here; one that can is removed."""
    why = probe.why_unreadable(place, name)
    if not why:
        probe.remove(place, name)
    return why


def _remove_there(node: str, place: str, name: str) -> None:
    import ray

    with suppress(ray.exceptions.RayError), _sent_as_source():
        ray.get(_there(node, probe.remove, place, name), timeout=5)


def _silence(name: str, why: str, where: str) -> Fault:
    remedy = f"See that node's Ray logs, take the node away, or set {PATIENCE} where nodes are busy"
    return Fault(where, "", f"node {name} must answer, but {why}", remedy)
