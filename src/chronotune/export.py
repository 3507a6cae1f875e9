"""Write a trained model so that what is written can be read: a checkpoint, its preset and its recipe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

from chronotune import __version__
from chronotune.checkpoint import appearing, sha256
from chronotune.config.base import MAX_NAME, NAME_PATTERN
from chronotune.config.load import dump, load_model
from chronotune.config.model import ModelPreset, Provenance, Serving
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.panel import Panel
from chronotune.errors import Fault, InputError
from chronotune.gate import UNVERIFIED, alternative, doubt, is_named, is_refit, is_shipped
from chronotune.memory import pairs
from chronotune.study import Reading, TrialRecord, read
from chronotune.trial import Assignment

WEIGHTS = "model.safetensors"
NOTHING: Mapping[str, Any] = {}
"""The course of a training of which nothing is known."""
REFITTED = "refitted"
"""Folder of a sweep that holds its winner's refit, beside `winner`, on which the verdict is."""


class Exporter(Protocol):
    """A worker, here or elsewhere, that can write a winner's plain weights: `again.LastWorker`, or `RemoteWorker`."""

    def export_best(self, record: TrialRecord, folder: Path) -> None:
        """Write the weights of a training's best result into `folder`, whatever has become of its checkpoint."""


def write_winner(worker: Exporter, assignment: Assignment, best: TrialRecord, panel: Panel) -> dict[str, Any]:
    """Write `winner/` of a sweep's folder: complete, or as it was before.

    Args:
        worker: Writes the weights.
        assignment: What all trials share.
        best: A searched trial, or a finalist's repeat.
        panel: All data, for the encodings of categories.

    Returns:
        What the study notes of its winner: number (of the searched trial), windows_seen, score, sha256 and bytes of the
        weights, and of a finalist's repeat its seed.
    """
    assert best.best is not None
    assert best.hyperparameters is not None
    folder = assignment.directory / "winner"
    with appearing(folder) as draft:
        worker.export_best(best, draft)
        digest = declare(draft, assignment.recipe, best, panel, best.best.attributes)
    return {
        "number": best.searched,
        "windows_seen": best.best.windows_seen,
        "score": best.best.objective,
        "sha256": digest,
        "bytes": (folder / WEIGHTS).stat().st_size,
        **({} if best.seed is None else {"seed": best.seed}),
    }


def declare(
    folder: Path,
    recipe: Recipe,
    record: TrialRecord,
    panel: Panel,
    course: Mapping[str, Any],
    *,
    refitted: bool = False,
) -> str:
    """Write a training's `preset.yaml` and `recipe.yaml` beside its best weights, as `write_declarations` does.

    Args:
        folder: Where the weights are.
        recipe: The sweep's.
        record: A searched trial, or a finalist's repeat.
        panel: All data, for the encodings of categories.
        course: How steps were computed: attributes of the result.
        refitted: Whether it was trained once more, on validation too.

    Returns:
        SHA-256 of the weights, in hex.
    """
    assert record.best is not None
    assert record.hyperparameters is not None
    return write_declarations(
        folder,
        recipe if record.seed is None else recipe.model_copy(update={"seed": record.seed}),
        record.hyperparameters,
        panel,
        name=numbered(recipe.name, record.searched),
        windows_seen=record.best.windows_seen,
        score=record.best.objective,
        trial=record.searched,
        course=course,
        refitted=refitted,
    )


def write_declarations(
    folder: Path,
    recipe: Recipe,
    point: Hyperparameters,
    panel: Panel,
    *,
    name: str,
    windows_seen: int,
    score: float | None,
    trial: int | None,
    course: Mapping[str, Any] = NOTHING,
    refitted: bool = False,
) -> str:
    """Write `preset.yaml` and `recipe.yaml` beside weights that are already in `folder`.

    The recipe holds both the schedule's full length and where this training ended, and its `course`, the attributes of
    its result: how steps were split where memory did not hold a batch at once, and where they had more threads than a
    trial has; so training again repeats it. Of weights that are `refitted`, trained on validation too, no score is
    told, and both files are marked.

    Returns:
        SHA-256 of the weights, in hex.
    """
    digest, recipe = sha256(folder / WEIGHTS), pinned(recipe)
    columns = recipe.data.sets[point.covariates]
    preset = ModelPreset(
        name=name,
        weights=".",
        revision=digest,
        max_context_length=recipe.model.max_context_length,
        serving=Serving(
            horizon=recipe.horizon,
            context_length=point.context_length,
            step=panel.step,
            time=recipe.data.time,
            target=recipe.data.target,
            id=recipe.data.id,
            past_only=[c for c in recipe.data.past_only if c in columns],
            known_future=[c for c in recipe.data.known_future if c in columns],
            encodings={c: code for c, code in panel.encodings.items() if c in columns},
        ),
        provenance=Provenance(
            created=datetime.now(UTC).replace(microsecond=0),
            base="@".join(filter(None, [recipe.model.name, recipe.model.revision])),
            recipe=recipe.name,
            trial=trial,
            seed=recipe.seed,
            windows_seen=windows_seen,
            objective=recipe.objective,
            validation_score=None if refitted else score,
            chronotune=__version__,
            unverified=UNVERIFIED if refitted else None,
        ),
    )
    (folder / "preset.yaml").write_text(preset_text(preset))
    mark = f"# {UNVERIFIED}\n" if refitted else ""
    (folder / "recipe.yaml").write_text(mark + dump(collapsed(recipe, point, windows_seen, course, refitted)))
    return digest


def preset_text(preset: ModelPreset) -> str:
    """YAML of a tuned model that opens as every declaration does: a command that uses it, and what it is."""
    made, serving = preset.provenance, preset.serving
    if made is None or serving is None:
        return dump(preset)
    how = f"trial {made.trial} of {made.recipe}" if made.trial is not None else f"one training of {made.recipe}"
    parts = [f"{serving.target}, {serving.horizon} steps ahead", f"tuned from {made.base.partition('@')[0]}, {how}"]
    parts += ["exported by force"] if made.forced else []
    told = made.unverified or (made.verdict or "").partition(";")[0]  # never the verdict on other weights
    parts += [told] if told else []
    about = " ".join("; ".join(parts).split())  # one line, whatever a column is called
    return f"# chronotune forecast models/{preset.name} FILE.csv\n# {about}\n{dump(preset)}"


def pinned(recipe: Recipe) -> Recipe:
    """The recipe with what another version could choose otherwise written out.

    That is its first rung, and the SHA-256 of its base weights as their revision, when they are a folder without one.
    """
    early_stopping = recipe.early_stopping.model_copy(update={"grace": recipe.grace})
    recipe = recipe.model_copy(update={"early_stopping": early_stopping})
    weights = Path(recipe.model.weights) / WEIGHTS
    if recipe.model.revision is not None or not weights.is_file():
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": sha256(weights)})})


def collapsed(
    recipe: Recipe,
    point: Hyperparameters,
    windows_seen: int,
    course: Mapping[str, Any] = NOTHING,
    refitted: bool = False,
) -> Recipe:
    """The recipe of one configuration: the space holds constants, training ends where this one did, none is repeated.

    Whether it is refitted is whether these weights were.

    The addresses of the sweep's tracking, study and checkpoints stay behind: they belong to the place, and may hold a
    secret.
    """
    usual = {"splits": point.windows, "threads": recipe.cluster.cpus_per_trial}
    kept = {key: pairs(course, key) for key, value in usual.items() if pairs(course, key) != [(0, value)]}
    finalists = recipe.finalists.model_copy(update={"top": 0, "refit": refitted})
    changes = {"trials": 1, "stop_at": windows_seen, **{key: kept.get(key) or None for key in usual}}
    budget = recipe.budget.model_copy(update=changes)
    space = recipe.search_space.collapse(point)
    tracking = recipe.tracking.model_copy(update={"uri": None})
    nothing = {"enqueue": [], "vendor_defaults": False, "warm_start": []}
    search = recipe.search.model_copy(update=nothing)  # one point leaves nothing to search
    cluster = recipe.cluster.model_copy(update={"checkpoints": None})
    parts = {"budget": budget, "search_space": space, "search": search, "tracking": tracking, "finalists": finalists}
    return recipe.model_copy(update={**parts, "cluster": cluster, "storage": None})


def export_winner(directory: str | Path, to: str | Path, force: bool = False, unrefitted: bool = False) -> Path:
    """Copy a sweep's winner out of its folder, if its verdict is to ship it; with `finalists.refit` its refit.

    The preset's provenance tells the verdict, whether it was overruled, and of a refit that it is not verified.

    Args:
        directory: The sweep's folder.
        to: Where the model shall stand, e.g. `models/steel`. When it exists, a time is added to its name: an export
            never overwrites.
        force: Export also what is not shown to be better than zero-shot.
        unrefitted: Export the very weights that the verdict is on, although there is a refit.

    Returns:
        Where it stands.

    Raises:
        InputError: The last part of `to` is no name for a model, the sweep has no winner yet or not its refit, the
            folder holds other weights than the study names, or the verdict is not to ship it and `force` is not given.
    """
    directory, to = Path(directory), Path(to)
    refuse_bad_name(to)
    if not (directory / "winner" / "preset.yaml").exists():
        raise InputError(
            f"{directory}: only a sweep with a winner can be exported. Finish it with `chronotune resume {directory}`"
        )
    reading = read(directory)
    if not force:
        _refuse_unshipped(directory, reading)
    refitted = bool(reading.attributes["recipe"].get("finalists", {}).get("refit")) and not unrefitted
    if refitted:
        _refuse_without_refit(directory, reading)
    source, to = directory / (REFITTED if refitted else "winner"), free_folder(to)
    with appearing(to, replace=False) as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)
        preset = load_model(draft / "preset.yaml")
        named = is_refit(preset, reading) if refitted else is_named(preset, reading)
        if not named or sha256(draft / WEIGHTS) != preset.revision:
            raise InputError(
                f"{directory}: only the winner that the study names is exported, but {source.name}/ holds other "
                f"weights: a driver was killed, or is at work. Finish the sweep with `chronotune resume {directory}`"
            )
        preset = _judged(preset, reading.evaluation)
        (draft / "preset.yaml").write_text(preset_text(preset.model_copy(update={"name": to.name, "weights": "."})))
    return to


def _refuse_without_refit(directory: Path, reading: Reading) -> None:
    noted = (reading.attributes.get("winner") or {}).get("refit_sha256")
    if not noted or not (directory / REFITTED / "preset.yaml").exists():
        lost = f"{REFITTED}/ is gone. Restore it" if noted else f"is not done. Finish it: chronotune resume {directory}"
        raise InputError(
            f"{directory}: with finalists.refit the winner's refit is exported, but it {lost}, "
            f"or take the weights that were judged: --unrefitted"
        )


def _refuse_unshipped(directory: Path, reading: Reading) -> None:
    if is_shipped(reading.evaluation):
        return
    instead = alternative(reading.attributes["recipe"]["model"]["name"], reading.zero_shot)
    raise InputError(
        f"{directory}: a winner is exported when it is better than zero-shot, but {doubt(reading.evaluation)}. "
        f"Use {instead}, or export it all the same with --force (force=True in Python)"
    )


def _judged(preset: ModelPreset, evaluation: Mapping[str, Any] | None) -> ModelPreset:
    """The preset with the verdict in its provenance; of a refit, that on the training that was repeated."""
    if preset.provenance is None:
        return preset
    verdict = (evaluation or {}).get("verdict") or {}
    told = {"verdict": verdict.get("sentence"), "forced": not is_shipped(evaluation)}
    return preset.model_copy(update={"provenance": preset.provenance.model_copy(update=told)})


def made_of_several(recipe: Path) -> str | None:
    """What the model beside an exported recipe is, where the recipe trains only a part of it: an average or a blend."""
    beside = recipe.with_name("preset.yaml")
    if not (recipe.is_file() and beside.exists()):  # else it is a recipe's name
        return None
    try:
        preset = load_model(beside)
    except InputError:  # not ours to judge: the recipe is what is trained
        return None
    if preset.members:
        return "a blend"
    return "an average" if preset.provenance and preset.provenance.averaged else None


def free_folder(wanted: Path) -> Path:
    """`wanted`, or with the time added when it is taken, and a number when that is taken too."""
    if not wanted.exists():
        return wanted
    stamped = wanted.with_name(f"{wanted.name}-{datetime.now():%Y%m%d-%H%M%S}")
    numbered = (stamped.with_name(f"{stamped.name}-{number}") for number in count(2))
    return next(folder for folder in chain([stamped], numbered) if not folder.exists())


def refuse_bad_name(to: Path) -> None:
    """A model has the name of its folder, with a time behind it when that is taken.

    Raises:
        InputError: The folder's name is no `Name`, or too long for the time.
    """
    longest = MAX_NAME - len("-20260101-120000-10")
    if not re.fullmatch(NAME_PATTERN, to.name) or len(to.name) > longest:
        rule = (
            f"must end in a name of letters, digits, dot, dash and underscore that begins with a letter or digit, "
            f"at most {longest} long, but is {str(to)!r}"
        )
        raise InputError([Fault("--to", "", rule, "Name a folder such as models/steel")])


def numbered(name: str, number: int) -> str:
    """`steel-12`; a long name is shortened so that the whole is a `Name`."""
    return f"{name[: MAX_NAME - len(f'-{number}')]}-{number}"
