"""The final evaluator: all contenders on the test windows, which no trial has ever received."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chronotune.challenger import mixed
from chronotune.config.recipe import Recipe, stored
from chronotune.contenders import BEST, ZERO_SHOT, Contender, Predict, Segment, forecasts, of_sweep, row_of
from chronotune.data.panel import FloatArray
from chronotune.data.prepare import Dataset, fingerprint, load, trial_data
from chronotune.errors import InputError
from chronotune.identity import identity
from chronotune.lease import Lease
from chronotune.metrics import without_nan
from chronotune.openings import Openings, count_beside
from chronotune.scoring import Ruler, merged
from chronotune.specimens import Specimens
from chronotune.study import Study, refuse_changes
from chronotune.tracking.content import sweep_id
from chronotune.trial import Assignment, Worker


def evaluate_again(directory: Path) -> dict[str, Any]:
    """Evaluate a finished sweep's winner once more; the opening of the test segment is counted.

    Raises:
        InputError: There is no sweep that has chosen what to export, somebody drives it, or its data have changed: the
            test segment would be another, or in what the winner was trained on. Nothing was opened.
    """
    with Lease(directory):
        study = Study.reopen(directory)
        recipe = stored(study.attribute("recipe"))
        refuse_unchosen(directory, study)
        dataset = load(recipe)
        data = trial_data(dataset, recipe)
        refuse_changes(study.attribute("identity"), identity(recipe, dataset, data))
        worker = Worker(Assignment(recipe, data, directory))
        return evaluate_sweep(directory, study, recipe, dataset, worker.predict)


def evaluate_sweep(directory: Path, study: Study, recipe: Recipe, dataset: Dataset, predict: Predict) -> dict[str, Any]:
    """Open the test segment, and count it, for the challenger that the study already names.

    `segments.json` gets the metrics of every contender by horizon step, hour, weekday, series of a panel and column of
    `evaluation.segments`; `windows.json` what the report shows of single windows (`Specimens.as_dict`).

    Returns:
        What `evaluation.json` and the study hold: the test windows, the numbers of openings (`openings.Openings`), a
        row a contender, the verdict on the challenger and the setting of zero-shot that validation preferred, the
        challenger's name and the `sha256` of its weights. A row has, beside all metrics, the objective on `validation`,
        the weights of a blend's `members`, and the `gain` over that setting of zero-shot with its 95% interval,
        `gain_low` to `gain_high`: a verdict only for the challenger, which alone was chosen before; null where there is
        none.

    Raises:
        InputError: A column of `evaluation.segments` is not in the data, or has too many values; nothing was opened.
    """
    ruler = Ruler.of_test(dataset, recipe)
    openings = opened(directory, study, dataset)
    reading = study.read()
    choice = reading.attributes.get("choice") or {}
    specimens = Specimens(ruler, choice.get("challenger", BEST), ZERO_SHOT)
    scored, tables = _score(
        of_sweep(directory, reading), dataset, ruler, predict, openings, choice=choice, specimens=specimens
    )
    winner = reading.attributes["winner"]
    evaluation = {**scored, "sha256": winner["sha256"], "challenger": winner.get("challenger", BEST)}
    windows = {"sha256": evaluation["sha256"], **specimens.as_dict()}
    for name, content in {"evaluation": evaluation, "segments": tables, "windows": windows}.items():
        (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    study.note("evaluation", evaluation)  # last: what is noted is not done again, so the files must be there
    return evaluation


def refuse_unchosen(directory: Path, study: Study) -> None:
    """Do nothing when the sweep has chosen what its test segment is opened for.

    Raises:
        InputError: It has no winner yet, or not compared it with what is made of it.
    """
    winner = study.attribute("winner")
    if winner is None or not ("challenger" in winner or study.attribute("ended")):  # ended: by an earlier version
        raise InputError(
            f"{directory}: a sweep is evaluated when it has chosen what to export, but it has not yet. "
            f"Finish it with `chronotune resume {directory}`"
        )


def opened(directory: Path, study: Study, dataset: Dataset) -> Openings:
    """Count one more opening of the test segment: in the study, and beside the sweep for all those on its target."""
    moments = [*(study.attribute("test_openings") or []), datetime.now(UTC).isoformat(timespec="seconds")]
    study.note("test_openings", moments)
    sweep = sweep_id(study.read())[:12]
    return Openings(len(moments), count_beside(directory.resolve().parent, target_of(dataset), sweep, moments))


def target_of(dataset: Dataset) -> str:
    """Fingerprint of the target alone: what a look at a test segment tells of, whatever a model is fed."""
    return fingerprint(dataset.panel.select(()))[:16]


def _score(
    contenders: Sequence[Contender],
    dataset: Dataset,
    ruler: Ruler,
    predict: Predict,
    openings: Openings | None = None,
    *,
    choice: Mapping[str, Any] | None = None,
    tabled: bool = True,
    specimens: Specimens | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The evaluation, and the tables by step and segment, empty unless `tabled`; only `specimens` keeps forecasts."""
    choice = choice or {}
    rows: list[dict[str, Any]] = []
    losses: dict[str, FloatArray] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    segment = Segment.of_test(dataset, ruler.recipe, ruler.windows)
    for about, predictions in _with_blends(forecasts(contenders, segment, predict), choice.get("blends", {})):
        told = {**about, "validation": choice.get("scores", {}).get(about["model"])}
        rows.append({**told, **without_nan(ruler.score(predictions))})
        losses[about["model"]] = ruler.losses(predictions)
        if specimens is not None:
            specimens.see(about["model"], predictions)
        if tabled:
            tables = merged(tables, without_nan(ruler.tables(predictions)), about)
    challenger = choice.get("challenger", BEST)
    return {
        **ruler.about,
        "rows": [{**row, **_gain(ruler, row["model"], losses)} for row in rows],
        **(openings or Openings()).as_dict(),
        "verdict": ruler.verdict(challenger, ZERO_SHOT, losses, openings).as_dict()
        if {challenger, ZERO_SHOT} <= losses.keys()
        else None,
    }, tables


def _with_blends(
    given: Iterator[tuple[dict[str, Any], FloatArray]], blends: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[dict[str, Any], FloatArray]]:
    """The given forecasts, then those that are made of them."""
    wanted, known = {member for weights in blends.values() for member in weights}, dict[str, FloatArray]()
    for about, predictions in given:
        if about["model"] in wanted:
            known[about["model"]] = predictions
        yield about, predictions
    for name, weights in blends.items():
        yield row_of(name, None, "", weights), mixed(known, weights)


def _gain(ruler: Ruler, name: str, losses: Mapping[str, FloatArray]) -> dict[str, float | None]:
    """The gain over zero-shot as validation preferred it, and its 95% interval; for zero-shot itself there is none."""
    if name == ZERO_SHOT or ZERO_SHOT not in losses:
        return {"gain": None, "gain_low": None, "gain_high": None}
    it = ruler.compared(losses[name].sum(axis=1), losses[ZERO_SHOT].sum(axis=1))
    gain: dict[str, float | None] = without_nan({"gain": it.gain, "gain_low": it.low, "gain_high": it.high})
    return gain
