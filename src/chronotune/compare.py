"""Sweeps and models side by side, where the same ruler measured them; and why the others do not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronotune.config.load import load_model, load_recipe
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import without_segments
from chronotune.contenders import BEST
from chronotune.data.prepare import load, trial_data
from chronotune.errors import ChronotuneError, InputError
from chronotune.gate import decision_of
from chronotune.identity import ruler
from chronotune.metrics import without_nan
from chronotune.openings import Openings
from chronotune.study import Reading, is_sweep, read


@dataclass(frozen=True)
class _Entry:
    """One sweep or model, and what measured it."""

    row: Mapping[str, Any]
    ruler: str | None = None
    """None when there is none: `trouble` says why."""
    test: tuple[Any, ...] | None = None
    """The test windows and what the seasonal naive forecast scored on them; None when they were not evaluated."""
    trouble: str | None = None

    @property
    def name(self) -> str:
        return str(self.row["name"])


def compare(targets: Sequence[str | Path]) -> dict[str, Any]:
    """Compare the winners of sweeps and exported models by their validation scores, and sweeps by their test scores.

    Scores compare only when the same ruler made them: the same forecast origins, horizon, objective and denominators.
    What covariates there were does not matter. Test scores compare only on the same test windows.

    Args:
        targets: At least two of them: folders of sweeps; names or folders of models that chronotune exported.

    Returns:
        JSON values. `groups`: for each ruler that measured at least two, `ruler` and `rows`, the best first; a row has
        name, kind, objective, trials, score and zero_shot (on validation), gain, fitted (an average or a blend, made
        on these very windows, so that it looks better there than it is), and from the test windows test,
        test_zero_shot, test_gain, low, high, verdict, and how often they had been opened when they were scored:
        test_openings by the sweep, test_openings_here by all beside it (`openings.Openings`). `apart`: name and why
        of what does not compare with the first group, or not on the test windows.

    Raises:
        InputError: There are not two, or no two compare; says why.
    """
    if len({str(target) for target in targets}) < 2:
        raise InputError(f"compare takes at least two sweeps or models, but {len(targets)} is given. Name another")
    entries = [_entry(target) for target in targets]
    groups = {one.ruler: [e for e in entries if e.ruler == one.ruler] for one in entries if one.ruler}
    tables = [group for group in groups.values() if len(group) > 1]
    first = (tables or [[next((entry for entry in entries if entry.ruler), entries[0])]])[0]
    apart = [{"name": one.name, "why": why} for one in entries if (why := _why(one, first[0]))]
    if not tables:
        raise InputError("no two compare: " + "; ".join(f"{one['name']}: {one['why']}" for one in apart))
    return {
        "groups": [{"ruler": group[0].ruler, "rows": _rows(group)} for group in tables],
        "apart": [*apart, *(one for group in tables for one in _other_tests(group))],
    }


def _entry(target: str | Path) -> _Entry:
    try:
        if is_sweep(Path(target)):
            return _of_sweep(str(target), read(Path(target)))
        return _of_model(str(target), load_model(target))
    except ChronotuneError as error:
        return _Entry({"name": str(target)}, trouble=str(error))


def _of_sweep(name: str, reading: Reading) -> _Entry:
    attributes, evaluation = reading.attributes, reading.evaluation
    objective, won, best = attributes["recipe"]["objective"], attributes.get("winner"), reading.zero_shot
    row = {"name": name, "kind": "sweep", "objective": objective, "trials": len(reading.trials)}
    if won is None:
        return _Entry(row, trouble=f"it has no winner yet; finish it with `chronotune resume {name}`")
    score, reference = _score(won, attributes.get("choice") or {}), best["metrics"][objective] if best else None
    row |= {
        "fitted": won.get("challenger", BEST) != BEST,
        "score": score,
        "zero_shot": reference,
        "gain": 1 - score / reference if reference else None,
    }
    return _Entry({**row, **_tested(evaluation, objective)}, attributes["identity"]["ruler"], _windows(evaluation))


def _score(won: Mapping[str, Any], choice: Mapping[str, Any]) -> float:
    """What went out by itself scored on validation, as an export tells it: no mean over seeds, no other member."""
    same = choice.get("tuned") == won.get("tuned", won["sha256"])
    scores: Mapping[str, float] = choice.get("scores", {}) if same else {}
    return scores.get(won.get("challenger", BEST), won["score"])


def _tested(evaluation: Mapping[str, Any] | None, objective: str) -> dict[str, Any]:
    """What the test windows said of the winner, or whatever went out in its place."""
    verdict = (evaluation or {}).get("verdict")
    if evaluation is None or verdict is None:
        return {}
    scores = {row["model"]: row[objective] for row in evaluation["rows"]}
    return {
        "test": scores[verdict["challenger"]],
        "test_zero_shot": scores[verdict["zero_shot"]],
        "test_gain": verdict["gain"],
        "low": verdict["low"],
        "high": verdict["high"],
        "verdict": decision_of(evaluation),
        **Openings.of(evaluation).as_dict(),
    }


def _windows(evaluation: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    if evaluation is None:
        return None
    told = [evaluation.get(key) for key in ("windows", "horizon", "first_origin", "last_origin")]
    naive = [round(row["mae"], 4) for row in evaluation["rows"] if "naive" in row["model"] and row["mae"] is not None]
    return (*told, *naive[:1])


def _of_model(name: str, preset: ModelPreset) -> _Entry:
    row: dict[str, Any] = {"name": name, "kind": "model"}
    folder, came = Path(preset.weights), preset.provenance
    if came is None or not (folder / "recipe.yaml").exists():
        trouble = f"it was not tuned by chronotune; score it with `chronotune evaluate {name} RECIPE`"
        return _Entry(row, trouble=trouble)
    if came.validation_score is None:
        trouble = f"it is {came.unverified}; compare the sweep that it comes from, or what it exports with --unrefitted"
        return _Entry(row, trouble=trouble)
    recipe = without_segments(load_recipe(folder / "recipe.yaml"))
    measured = ruler(recipe, trial_data(load(recipe), recipe))
    told = {
        "objective": came.objective,
        "score": came.validation_score,
        "fitted": bool(preset.members or came.averaged),
    }
    return _Entry({**row, **told}, measured)


def _why(entry: _Entry, other: _Entry) -> str | None:
    """Why it does not compare with another; None when it does."""
    if entry.trouble or entry.ruler == other.ruler:
        return entry.trouble
    if other.ruler is None or entry.ruler is None:
        return None
    (mine, _), (its, _) = (text.rsplit(", ", 1) for text in (entry.ruler, other.ruler))
    if mine != its:
        return f"measured on {mine}, but {other.name} on {its}"
    return f"measured on {mine} as {other.name} is, but on other ones or by other seasons: another file or split"


def _other_tests(group: Sequence[_Entry]) -> list[dict[str, str]]:
    tested = [entry for entry in group if entry.test]
    why = "evaluated on other test windows than {}, so its test scores are left out"
    return [{"name": one.name, "why": why.format(tested[0].name)} for one in tested if one.test != tested[0].test]


def _rows(group: Sequence[_Entry]) -> list[dict[str, Any]]:
    """The best first; test scores of other windows than the first's are left out."""
    left_out = {one["name"] for one in _other_tests(group)}
    keys = ("name", "kind", "objective", "trials", "score", "fitted", "zero_shot", "gain")
    tests = ("test", "test_zero_shot", "test_gain", "low", "high", "verdict", *Openings().as_dict())
    rows = [
        {
            **{key: entry.row.get(key) for key in keys},
            **{key: None if entry.name in left_out else entry.row.get(key) for key in tests},
        }
        for entry in sorted(group, key=lambda entry: entry.row["score"])
    ]
    return list(without_nan(rows))
