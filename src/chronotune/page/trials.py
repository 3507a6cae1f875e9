"""Optuna's own plots of a sweep, over trials that had the same budget, in the page's colours."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from chronotune.page.html import Plot
from chronotune.page.plots import BAD, CHALLENGER, INK, MUTED, label, level

MOST = 250
"""Trials that are drawn, each as a line, and that fANOVA looks at; its time grows with their square."""
_STANDING_OUT = 5
"""Trials that are drawn in colour among all lines."""
_COLOURS = {"complete": CHALLENGER, "pruned": MUTED, "failed": BAD, "running": INK}


def shared_budget(study: optuna.Study) -> int | None:
    """The most training windows after which at least half of the trials with any result, and two, were scored.

    Trials that were stopped early are compared with the others there, and only there: later only the better ones are
    left, and scores after different budgets are not alike.
    """
    scored = [trial.intermediate_values for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    reached = Counter(windows for values in scored for windows in values)
    return max((windows for windows, count in reached.items() if count >= max(2, len(scored) / 2)), default=None)


def at_budget(study: optuna.Study, windows: int) -> optuna.Study:
    """A study in memory of all trials that were scored after so many windows, with that score; names are escaped."""
    same = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(deepcopy=False):
        score = trial.intermediate_values.get(windows)
        if score is not None and math.isfinite(score):
            same.add_trial(_told(trial, score))
    return same


def the_best(study: optuna.Study) -> tuple[optuna.Study, list[int]]:
    """The best MOST trials as a study in memory, which counts anew, and the numbers that they have in `study`."""
    trials = sorted(study.get_trials(deepcopy=False), key=_best_score)[:MOST]
    trials.sort(key=lambda trial: trial.number)
    best = optuna.create_study(direction=study.direction)
    best.add_trials(trials)
    return best, [trial.number for trial in trials]


def _best_score(trial: FrozenTrial) -> float:
    values = list(trial.intermediate_values.values()) or ([] if trial.value is None else [trial.value])
    return min((value for value in values if math.isfinite(value)), default=math.inf)


def spread(study: optuna.Study) -> optuna.Study:
    """The same when it has at most MOST trials, else one in memory of so many, from the first to the last."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) <= MOST:
        return study
    some = optuna.create_study(direction=study.direction)
    some.add_trials([trials[number * len(trials) // MOST] for number in range(MOST)])
    return some


def _told(trial: FrozenTrial, score: float) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        value=score,
        params={name: _escaped(value) for name, value in trial.params.items()},
        distributions={name: _escaped_choices(one) for name, one in trial.distributions.items()},
    )


def _escaped(value: Any) -> Any:
    return label(value) if isinstance(value, str) else value


def _escaped_choices(distribution: BaseDistribution) -> BaseDistribution:
    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    return CategoricalDistribution([_escaped(choice) for choice in distribution.choices])


def varied(study: optuna.Study) -> list[str]:
    """Parameters that took at least two values, in the order in which they were suggested first."""
    values: dict[str, set[Any]] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(value)
    return [name for name, seen in values.items() if len(seen) > 1]


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the scores' variation each varied parameter explains, by fANOVA; they sum to 1; {} if unknown."""
    study = spread(study)
    names = varied(study)
    scores = {trial.value for trial in study.get_trials(deepcopy=False)}
    if not names or len(scores) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found[name]) for name in found if name in names}


def learning_curves(study: optuna.Study, states: Mapping[int, str], best: int | None, zero_shot: float | None) -> Plot:
    """Optuna's intermediate values: each trial's score by training windows seen; of many trials the best."""
    shown, numbers = the_best(study)
    chart = _plot(lambda: optuna.visualization.plot_intermediate_values(shown))
    for trace in chart["data"]:
        number = numbers[int(str(trace["name"]).removeprefix("Trial"))]
        state = states.get(number, "running")
        colour, front = _COLOURS[state], number == best
        trace |= {"name": f"trial {number}, {state}", "mode": "lines+markers", "showlegend": False}
        trace["line"] = {"color": colour, "width": 4 if front else 1.5}
        trace["marker"] = {"color": colour, "size": 9 if front else 5, "symbol": "x" if state == "pruned" else "circle"}
        trace["hovertemplate"] = f"trial {number}, {state}: %{{y:.4f}} after %{{x}} windows<extra></extra>"
    rungs = sorted({windows for trace in chart["data"] for windows in trace["x"]})
    axis = {"type": "log", "tickvals": rungs, "ticktext": [f"{rung:,}" for rung in rungs]}
    layout = {"xaxis": {"title": {"text": "training windows seen"}, **axis}, "yaxis": {"title": {"text": "score"}}}
    reference = level(zero_shot, "zero-shot") if zero_shot is not None else {}
    return {**chart, "layout": {**chart["layout"], **layout, **reference}, "height": 400}


def parallel_coordinates(study: optuna.Study) -> Plot:
    """Optuna's parallel coordinates of the best MOST trials, the very best in colour."""
    study, names = the_best(study)[0], varied(study)
    chart = _plot(lambda: optuna.visualization.plot_parallel_coordinate(study, params=names, target_name="score"))
    lines = [trace for trace in chart["data"] if trace.get("customdata")]
    for rank, trace in enumerate(sorted(lines, key=lambda trace: float(trace["customdata"][0][1]))):
        front = rank < _STANDING_OUT
        trace["line"] = {"color": CHALLENGER if front else MUTED, "width": 3 if front else 1}
        trace["opacity"] = 0.95 if front else 0.5
    for note in chart["layout"].get("annotations", []):
        note["font"] = {"color": INK, "size": 11}
        note["bgcolor"] = "--paper"
    for shape in chart["layout"].get("shapes", []):
        shape.setdefault("line", {})["color"] = MUTED
    chart["layout"]["margin"] = {"l": 55, "r": 55, "t": 24, "b": 40}
    return {**chart, "data": lines, "height": 420, "wide": True}


def slice_of(study: optuna.Study, name: str) -> Plot:
    """Optuna's slice plot of one parameter."""
    chart = _plot(lambda: optuna.visualization.plot_slice(study, params=[name], target_name="score"))
    for trace in chart["data"]:
        trace["marker"] = {"color": CHALLENGER, "size": 9, "opacity": 0.75}
    chart["layout"]["xaxis"]["exponentformat"] = "e"
    return {**chart, "height": 280}


def best_values(study: optuna.Study, name: str) -> list[Any]:
    """The values of a parameter in the best trials that have it, from best to worst."""
    having = [trial for trial in study.get_trials(deepcopy=False) if name in trial.params]
    ranked = sorted(having, key=lambda trial: (trial.value or 0.0, trial.number))
    return [trial.params[name] for trial in ranked[:_STANDING_OUT]]


def _plot(draw: Callable[[], Any]) -> Plot:
    """A figure of Optuna's as plain values, without its title and theme, which are the page's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials, which the page says itself
        chart = json.loads(draw().to_json())
    own = ("template", "title", "plot_bgcolor", "paper_bgcolor")
    layout = {key: value for key, value in chart["layout"].items() if key not in own}
    return {"data": chart["data"], "layout": layout}
