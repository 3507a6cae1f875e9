"""The challenger, chosen on validation before the test segment is opened: the tuned winner, or what is made of it.

The weight average of the best checkpoints and the blend of best and zero-shot use what the sweep has paid for anyway.
They are exported in the winner's place where they are so much better on validation that it is worth what they cost.
Blends with trees are weighed and scored beside them, but never challenge: an export holds models that the stock library
loads, and trees are none.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from chronotune import averaging
from chronotune.blending import blend, weigh
from chronotune.checkpoint import appearing, sha256
from chronotune.config.load import dump, load_model
from chronotune.config.model import Member, ModelPreset, Provenance
from chronotune.config.space import Hyperparameters
from chronotune.contenders import (
    AVERAGE,
    BEST,
    TREES,
    ZERO_SHOT,
    Contender,
    Segment,
    average_folder,
    forecasts,
    of_sweep,
    tuned_folder,
)
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.export import WEIGHTS, preset_text
from chronotune.finalists import champion, latest
from chronotune.forecaster import locate
from chronotune.scoring import Ruler, spread
from chronotune.stores import Store
from chronotune.study import Reading, Result, Study, TrialRecord, by_score
from chronotune.trial import Assignment

log = logging.getLogger("chronotune.challenger")

CLEARLY = 0.01
"""A blend must be better on validation by this share than any one model: its weight was fitted to these windows, and it
costs a second model."""
NOTICEABLY = 0.005
"""A weight average must be better by this share than the one training that won: it costs the recipe that repeats it."""
MOST_AVERAGED = 8
MOST_WINDOWS = 2000
"""Validation windows, at even distances, on which weights are found."""
WITH_ZERO_SHOT, WITH_TREES, STACK = f"{BEST} + {ZERO_SHOT}", f"{BEST} + trees", "stack of all"


class Models(Protocol):
    """A worker that forecasts and exports: `Worker`, or `RemoteWorker`."""

    def export(
        self, number: int, point: Hyperparameters, windows_seen: int, folder: Path, seed: int | None = None
    ) -> None:
        """Write the weights of trial `number` at `windows_seen` into `folder`; with a seed, of a finalist's repeat."""

    def predict(
        self,
        preset: ModelPreset,
        panel: Panel,
        windows: Sequence[Window],
        context_length: int,
        covariates: Sequence[str],
    ) -> FloatArray:
        """Quantile forecasts, as `contenders.Predict`."""


@dataclass(frozen=True)
class Choice:
    """What validation decided; the study notes it before the test segment is opened."""

    tuned: str
    """SHA-256 of the tuned winner's weights, whose choice this is."""
    challenger: str
    """Who is exported: BEST, AVERAGE or WITH_ZERO_SHOT."""
    scores: Mapping[str, float]
    """The objective on validation by contender; one that is not finite is left out."""
    blends: Mapping[str, Mapping[str, float]]
    """For each blend the weights of its members, those of 0 left out."""
    averaged: Sequence[str]
    """The trainings in the weight average, the winner first; empty when none made it better."""


def settle(directory: Path, study: Study, assignment: Assignment, worker: Models, panel: Panel) -> None:
    """Choose the challenger of the winner that the study names, and let `winner/` hold it; both are done only once.

    Args:
        directory: The sweep's folder.
        study: Open for writing; gets `choice`, and in `winner` what is exported.
        assignment: What all trials share; nothing else of the data is used.
        worker: Forecasts, and writes weights.
        panel: For the encodings of categories.
    """
    winner, noted = study.attribute("winner"), study.attribute("choice")
    tuned = winner.get("tuned", winner["sha256"])
    if noted is None or noted["tuned"] != tuned:
        study.note("choice", None)  # of an earlier winner: its average goes now, and must not be looked for
        shutil.rmtree(directory / "contenders", ignore_errors=True)
        study.note("choice", asdict(choose(directory, study.read(), assignment, worker)))
    if "challenger" not in winner:
        choice = study.attribute("choice")
        digest = _crown(directory, study.read(), panel, choice)
        told = {"tuned": tuned, "sha256": digest, "challenger": choice["challenger"]}
        study.note("winner", {**winner, **told})


def choose(directory: Path, reading: Reading, assignment: Assignment, worker: Models) -> Choice:
    """Compare everything on the validation windows, and write the weight average into the sweep's folder.

    Args:
        directory: The sweep's folder.
        reading: Of its study, which names the winner.
        assignment: What all trials share.
        worker: Forecasts, and writes weights.
    """
    recipe, data = assignment.recipe, assignment.data
    tuned = reading.attributes["winner"]["sha256"]
    if not recipe.evaluation.blends:
        return Choice(tuned, BEST, {}, {}, ())
    pair = [one for one in of_sweep(directory, reading) if one.name in (ZERO_SHOT, BEST)]
    known = {
        about["model"]: values for about, values in forecasts(pair, Segment.of_validation(data, recipe), worker.predict)
    }
    ruler = Ruler.of_validation(data, recipe)
    scores = {name: ruler.score(values)[recipe.objective] for name, values in known.items()}
    averaged = _average(directory, reading, assignment, worker, pair[-1], scores[BEST])
    if averaged:
        known[AVERAGE], scores[AVERAGE], names = averaged
    blends = _blends(known, assignment)
    scores |= {name: ruler.score(mixed(known, weights))[recipe.objective] for name, weights in blends.items()}
    scores = {name: score for name, score in scores.items() if math.isfinite(score)}
    challenger = BEST if recipe.finalists.refit else challenger_of(scores)  # only one training can be repeated
    return Choice(tuned, challenger, scores, blends, names if averaged else ())


def challenger_of(scores: Mapping[str, float]) -> str:
    """The winner, the average where noticeably better, or the blend with zero-shot where clearly better than both."""
    average, blended = (scores.get(name, math.inf) for name in (AVERAGE, WITH_ZERO_SHOT))
    if blended < (1 - CLEARLY) * min(scores[BEST], average):
        return WITH_ZERO_SHOT
    return AVERAGE if average < (1 - NOTICEABLY) * scores[BEST] else BEST


def mixed(known: Mapping[str, FloatArray], weights: Mapping[str, float]) -> FloatArray:
    """The blend of some contenders' forecasts."""
    return blend([known[name] for name in weights], list(weights.values()))


def _blends(known: Mapping[str, FloatArray], assignment: Assignment) -> dict[str, dict[str, float]]:
    """Every blend of two or more, with the weights that validation prefers."""
    ruler = Ruler.of_validation(assignment.data, assignment.recipe, MOST_WINDOWS)
    rows = spread(assignment.data, MOST_WINDOWS)
    wanted = {WITH_ZERO_SHOT: (BEST, ZERO_SHOT), WITH_TREES: (BEST, TREES), STACK: tuple(known)}
    found = {}
    for name, members in wanted.items():
        if all(member in known for member in members):
            weights = weigh([known[m][rows] for m in members], lambda values: float(ruler.by_window(values).sum()))
            found[name] = {member: weight for member, weight in zip(members, weights, strict=True) if weight}
    return {name: weights for name, weights in found.items() if len(weights) > 1}


def _average(
    directory: Path, reading: Reading, assignment: Assignment, worker: Models, best: Contender, score: float
) -> tuple[FloatArray, float, list[str]] | None:
    """Forecasts, score and ingredients of a greedy soup, whose weights are written; None when it is the winner alone.

    The winner first, then the other checkpoints from best to worst, each kept if the mean is better with it
    (Wortsman et al. 2022, algorithm 1).
    """
    recipe, data = assignment.recipe, assignment.data
    kept: tuple[Path, FloatArray] | None = None
    ruler, names = Ruler.of_validation(data, recipe), [_name(winner_record(reading))]
    with _scratch(directory) as scratch:
        folders = [Path(best.preset.weights)]
        for number, record in enumerate(ingredients(assignment.store, reading)):
            folder, mean = (scratch / f"{kind}{number}" for kind in ("one", "mean"))
            preset = best.preset.model_copy(update={"weights": str(mean), "revision": None})
            try:
                _write_mean(worker, folders, record, folder, mean)
                values = worker.predict(preset, data.panel, data.validation, best.context_length, best.covariates)
                reached = ruler.score(values)[recipe.objective]
            except Exception as error:  # what nobody must have ends no sweep
                log.warning("%s is not averaged: %r", _name(record), error)
                reached = math.inf
            better = reached < score
            for needless in ([kept[0]] if kept else []) if better else [folder, mean]:
                shutil.rmtree(needless, ignore_errors=True)  # weights are large
            if better:
                folders, names, score, kept = [*folders, folder], [*names, _name(record)], reached, (mean, values)
        if kept is None or not _is_written(average_folder(directory), kept[0], best.preset, names, score):
            return None
    return kept[1], score, names


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """A hidden folder for weights, gigabytes; what an earlier driver that was killed left there is removed."""
    folder = directory / ".averaging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_mean(worker: Models, folders: Sequence[Path], record: TrialRecord, folder: Path, mean: Path) -> None:
    """Into `folder` the weights of one more training, into `mean` their mean with those in `folders`."""
    assert record.best is not None
    assert record.hyperparameters is not None
    for new in (folder, mean):
        new.mkdir()
    worker.export(record.number, record.hyperparameters, record.best.windows_seen, folder, record.seed)
    averaging.average([*folders, folder], mean)


def ingredients(store: Store, reading: Reading) -> list[TrialRecord]:
    """Trainings whose best checkpoint is still there, from best to worst, at most as many as an average may have.

    They are the repeats of the finalist that won, and the best trials of the search; the winner itself is left out.
    """
    final, winner = champion(reading), winner_record(reading)
    repeats = list(final.complete) if final else []
    there = [
        record
        for record in [*repeats, *by_score(reading.trials)]
        if record != winner and record.best is not None and _is_there(store, record.best)
    ]
    return sorted(there, key=lambda record: record.best.objective if record.best else 0.0)[: MOST_AVERAGED - 1]


def _is_there(store: Store, result: Result) -> bool:
    place: str | None = result.attributes.get("checkpoint")
    if place is None:  # as of earlier versions
        return False
    trial, _, windows_seen = place.rpartition("/")
    return windows_seen in map(str, store.complete(trial))


def winner_record(reading: Reading) -> TrialRecord:
    """The training that the study names as the tuned winner: a searched trial, or a finalist's repeat."""
    noted: Mapping[str, Any] = reading.attributes["winner"]
    if "seed" not in noted:
        return reading.trials[int(noted["number"])]
    return next(one for one in latest(reading.finalists) if (one.of, one.seed) == (noted["number"], noted["seed"]))


def _name(record: TrialRecord) -> str:
    assert record.best is not None
    which = f"trial {record.number}" if record.of is None else f"trial {record.of} seed {record.seed}"
    return f"{which} after {record.best.windows_seen} windows"


def _is_written(to: Path, weights: Path, tuned: ModelPreset, names: Sequence[str], score: float) -> bool:
    """Whether the average could be made a complete export; its recipe is the winner's."""
    try:
        to.parent.mkdir(exist_ok=True)
        with appearing(to) as draft:
            shutil.copytree(weights, draft, dirs_exist_ok=True)
            shutil.copyfile(Path(tuned.weights) / "recipe.yaml", draft / "recipe.yaml")
            _write_preset(draft, tuned, revision=sha256(draft / WEIGHTS), provenance=_scored(tuned, score, names))
    except OSError as error:
        log.warning("there is no average, as it could not be written: %s", error)
        return False
    return True


def _scored(tuned: ModelPreset, score: float, names: Sequence[str] = ()) -> Provenance:
    assert tuned.provenance is not None
    return tuned.provenance.model_copy(update={"validation_score": score, "averaged": list(names)})


def _write_preset(folder: Path, tuned: ModelPreset, **changes: Any) -> None:
    preset = tuned.model_copy(update={"weights": ".", **changes})
    (folder / "preset.yaml").write_text(preset_text(preset))


def _crown(directory: Path, reading: Reading, panel: Panel, choice: Mapping[str, Any]) -> str | None:
    """Let `winner/` hold the challenger; the SHA-256 of its weights, of a blend those of the tuned member."""
    winner = directory / "winner"
    contenders = {one.name: one for one in of_sweep(directory, reading)}
    tuned = contenders[BEST].preset
    if choice["challenger"] == AVERAGE:
        _copied(Path(tuned.weights), tuned_folder(directory))
        _copied(average_folder(directory), winner)
    elif choice["challenger"] == WITH_ZERO_SHOT:
        with appearing(winner) as draft:
            shutil.copytree(tuned.weights, draft, dirs_exist_ok=True)
            pair = [contenders[BEST], contenders[ZERO_SHOT]]
            _write_blend(draft, pair, panel, choice["blends"][WITH_ZERO_SHOT], choice["scores"][WITH_ZERO_SHOT])
    return load_model(winner / "preset.yaml").revision


def _copied(source: Path, to: Path) -> None:
    if source.resolve() == to.resolve():
        return
    to.parent.mkdir(exist_ok=True)
    with appearing(to) as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)


def _write_blend(
    folder: Path, pair: Sequence[Contender], panel: Panel, weights: Mapping[str, float], score: float
) -> None:
    """Put zero-shot beside the tuned weights that are in `folder`, and name both as members."""
    best, zero_shot = pair
    assert best.preset.serving is not None
    base, beside = locate(zero_shot.preset), folder / "members" / ZERO_SHOT
    beside.mkdir(parents=True, exist_ok=True)  # there already where an earlier driver was killed behind this
    for name in (averaging.CONFIG, averaging.WEIGHTS):
        shutil.copyfile(base / name, beside / name)
    revision = sha256(beside / WEIGHTS)
    (beside / "preset.yaml").write_text(
        dump(zero_shot.preset.model_copy(update={"weights": ".", "revision": revision}))
    )
    shown = {*best.covariates, *zero_shot.covariates}
    serving = best.preset.serving.model_copy(
        update={
            "past_only": [c for c in panel.past_only if c in shown],
            "known_future": [c for c in panel.known_future if c in shown],
            "encodings": {c: code for c, code in panel.encodings.items() if c in shown},
        }
    )
    members = list(_members(pair, weights))
    _write_preset(folder, best.preset, members=members, serving=serving, provenance=_scored(best.preset, score))


def _members(pair: Sequence[Contender], weights: Mapping[str, float]) -> Iterator[Member]:
    for one, folder in zip(pair, (".", f"members/{ZERO_SHOT}"), strict=True):
        yield Member(
            folder=folder,
            weight=weights[one.name],
            context_length=one.context_length,
            covariates=list(one.covariates),
        )
