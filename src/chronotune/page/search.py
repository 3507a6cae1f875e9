"""How the search went: the leaderboard, learning curves, and what the hyperparameters did."""

from __future__ import annotations

from collections.abc import Mapping
from html import unescape
from typing import Any

from chronotune.noise import sentence
from chronotune.page import trials
from chronotune.page.html import Content, Html, Plot, figure, join, missing, section, table, tag
from chronotune.page.material import Material
from chronotune.page.plots import CHALLENGER, label, plot
from chronotune.page.words import duration, figure_of, percent, plural
from chronotune.results import noise, zero_shot

_ENOUGH = 4
"""Trials without which nothing can be said of what a hyperparameter did."""
_SHOWN_FAILURES = 10


def search(material: Material) -> Html:
    """The leaderboard, the finalists, and the plots of all trials."""
    board = tag("p", _about(material)), _leaderboard(material), _zero_shot(material), _finalists(material)
    return section("search", "How the search went", *board, _curves(material), *_influence(material))


def _about(material: Material) -> str:
    states = [trial.state for trial in material.reading.trials]
    counts = ", ".join(f"{states.count(state)} {word}" for state, word in _STATES.items() if state in states)
    stopped = material.reading.attributes.get("stopped")
    wanted = material.reading.attributes.get("trials")
    early = f" No more trials, although {wanted} were wanted: {stopped}." if stopped else ""
    counted = plural(len(states), "trial") + (f": {counts}" if counts else "")
    told = sentence(noise(material.reading))
    return (
        f"{counted}. Trials are ranked by {material.objective} on validation, lower is better; "
        f"the full budget is {material.recipe['budget']['windows']:,} training windows.{early}"
        + (f" {told[:1].upper()}{told[1:]}." if told else "")
    )


_STATES = {"complete": "with the full budget", "pruned": "stopped early", "failed": "failed", "running": "unfinished"}


def _leaderboard(material: Material) -> Html:
    if not material.board:
        return missing("No trial was begun.")
    noted = material.reading.attributes.get("winner") or {}
    head = material.board[: trials.MOST + 1]
    marked = [number for number, row in enumerate(head) if row["trial"] == noted.get("number", -1)]
    rows = [_row(row, material.objective) for row in head]
    zero = [] if material.board[0]["trial"] is None else [missing("The untouched model was not scored on validation.")]
    board = table("Leaderboard: zero-shot first, then the trials", rows, marked)
    return join([*zero, board, *_hidden(len(material.board) - len(head)), _failures(material)])


def _hidden(count: int) -> list[Html]:
    return [tag("p", f"{plural(count, 'trial')} behind these: see `chronotune show`.")] if count else []


def _failures(material: Material) -> Html:
    """Each reason once, with the trials that failed for it."""
    numbers: dict[str, list[int]] = {}
    for trial in (*material.reading.trials, *material.reading.finalists):
        if trial.state == "failed":
            numbers.setdefault(trial.reason or "unknown", []).append(trial.searched)
    if not numbers:
        return Html("")
    lines = (tag("li", f"{_named(failed)}: {reason}") for reason, failed in numbers.items())
    return join([tag("h3", "Why trials failed"), tag("ul", *lines, class_="reasons")])


def _named(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN_FAILURES]))
    more = f" and {len(numbers) - _SHOWN_FAILURES} more" if len(numbers) > _SHOWN_FAILURES else ""
    return f"trial{'' if len(numbers) == 1 else 's'} {shown}{more}"


def _row(row: Mapping[str, Any], objective: str) -> dict[str, Content]:
    rank = f" r={row['lora_rank']}" if row["lora_rank"] else ""
    return {
        "trial": figure_of(row["trial"]) or "-",
        "state": tag("span", row["state"], class_=f"state {row['state']}"),
        objective: figure_of(row["score"], ".4f"),
        "gain": "" if row["gain"] is None else percent(row["gain"]),
        "best at": figure_of(row["windows_seen"]),
        "steps": figure_of(row["steps"]),
        "time": "" if row["seconds"] is None else duration(row["seconds"]),
        "mode": f"{row['mode'] or ''}{rank}",
        "learning rate": figure_of(row["learning_rate"], ".1e"),
        "batch": f"{row['windows']}x{row['accumulation']}" if row["windows"] else "",
        "context": figure_of(row["context_length"]),
        "covariates": row["covariates"] or "",
    }


def _zero_shot(material: Material) -> Html:
    rows: list[dict[str, Content]] = [
        {name: figure_of(value, "" if name == "context" else ".4f") for name, value in row.items()}
        for row in zero_shot(material.reading)
    ]
    return table(f"Zero-shot: {material.objective} of the untouched model by what it is fed", rows)


def _finalists(material: Material) -> Html:
    if not material.finalists:
        if material.reading.winner is None:
            return Html("")
        return missing("No finalists were trained again with other seeds, so the best score may owe something to luck.")
    rows: list[dict[str, Content]] = [
        {
            "trial": str(row["trial"]),
            "state": tag("span", row["state"], class_=f"state {row['state']}"),
            f"mean {material.objective}": figure_of(row["mean"], ".4f"),
            "spread": figure_of(row["spread"], ".4f"),
            "gain": "" if row["gain"] is None else percent(row["gain"]),
            "in the search": figure_of(row["searched"], ".4f"),
            "with other seeds": ", ".join(figure_of(one["score"], ".4f") or one["state"] for one in row["repeats"]),
        }
        for row in material.finalists
    ]
    return table("Finalists: the best trials, trained again with other seeds; the best mean wins", rows, [0])


def _curves(material: Material) -> Html:
    states = {trial.number: trial.state for trial in material.reading.trials}
    if not any(trial.results for trial in material.reading.trials):
        return missing("Learning curves need a result, but no trial reported one.")
    best = (material.reading.attributes.get("winner") or {}).get("number")
    zero_shot = material.board[0]["score"] if material.board[0]["trial"] is None else None
    chart = trials.learning_curves(material.study, states, best, zero_shot)
    rungs = chart["layout"]["xaxis"]["tickvals"]
    many = _of_many(len(material.reading.trials))
    caption = (
        f"{many}Each line is a trial, scored at the rungs ({', '.join(f'{rung:,}' for rung in rungs)} windows). "
        "Lines that end in a cross were stopped there. Below the dotted line is better than the untouched model; "
        "curves that still fall at the end ask for a larger budget, curves that turn up for a smaller learning rate."
    )
    return figure("curves", chart, f"Learning curves: {material.objective} on validation", caption)


def _of_many(count: int) -> str:
    return f"Of {plural(count, 'trial')} the best {trials.MOST} are shown. " if count > trials.MOST else ""


def _influence(material: Material) -> list[Html]:
    """What the hyperparameters did, told at one budget."""
    budget = trials.shared_budget(material.study)
    same = trials.at_budget(material.study, budget) if budget else None
    if budget is None or same is None or len(same.trials) < _ENOUGH:
        found = len(same.trials) if same else 0
        return [
            missing(
                f"What the hyperparameters did is not shown: {plural(found, 'trial')} with the same budget, "
                f"but it takes {_ENOUGH} to say anything."
            )
        ]
    names = trials.varied(same)
    if not names:
        return [missing("Nothing was varied among the trials, so there is nothing to tell of hyperparameters.")]
    about = (
        f"{plural(len(same.trials), 'trial')}, all after {budget:,} training windows, where they had the same budget"
    )
    drawn = trials.spread(same)
    slices = [_slice(same, drawn, number, name) for number, name in enumerate(names)]
    return [_importances(same, about), _parallel(same, about), tag("div", *slices, class_="grid")]


def _importances(same: Any, about: str) -> Html:
    found = trials.importances(same)
    if not found:
        return missing("Importances are unknown: all trials scored the same.")
    least_first = sorted(found.items(), key=lambda item: item[1])
    caption = (
        f"How much of the differences between trials each hyperparameter explains (fANOVA), of {about}. "
        f"{'With so few trials this is a hint, no more.' if len(same.trials) < 20 else ''}"
    ).strip()
    numbers = table(
        "Importance", [{"what": name, "share": f"{share:.0%}"} for name, share in reversed(least_first)], shown=20
    )
    return figure("importances", _bars(least_first), "Which hyperparameters mattered", caption, numbers)


def _bars(found: list[tuple[str, float]]) -> Plot:
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [share for _, share in found],
        "y": [label(name.replace("_", " ")) for name, _ in found],
        "text": [f"{share:.0%}" for _, share in found],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": CHALLENGER},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    axis = {"tickformat": ".0%", "range": [0, 1.15 * max(share for _, share in found)]}
    return plot([bars], "share of the differences", "", 120 + 32 * len(found), xaxis=axis, yaxis={"automargin": True})


def _parallel(same: Any, about: str) -> Html:
    caption = (
        f"{_of_many(len(same.trials))}Each line is a trial, from its score on the left through its settings; the best "
        f"five in colour. {about}."
    )
    return figure("parallel", trials.parallel_coordinates(same), "Parallel coordinates", caption)


def _slice(same: Any, drawn: Any, number: int, name: str) -> Html:
    values = trials.best_values(same, name)
    if all(isinstance(value, float) for value in values):
        told = f"{min(values):.3g} to {max(values):.3g}"
    else:
        told = ", ".join(f"{unescape(str(one))} ({values.count(one)}x)" for one in dict.fromkeys(values))
    several, every = len(same.trials), len(drawn.trials)
    some = f"Of {plural(several, 'trial')} {every} are drawn, from the first to the last. " if every < several else ""
    caption = f"{some}Each dot is a trial, lower is better. The best {len(values)} had {told}."
    return figure(f"slice-{number}", trials.slice_of(drawn, name), f"Score by {name.replace('_', ' ')}", caption)
