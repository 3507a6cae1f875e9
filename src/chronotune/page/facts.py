"""What the sweep cost, what the data are like, how to do it again, and what the words mean."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from chronotune.contenders import BEST
from chronotune.gate import is_shipped
from chronotune.page.html import Content, Html, missing, section, table, tag
from chronotune.page.material import Material
from chronotune.page.words import MEANINGS, duration, moment, plural
from chronotune.study import TrialRecord


def overview(material: Material) -> Html:
    """What was tuned on what, for a reader who does not know this sweep."""
    recipe, evaluation = material.recipe, material.evaluation
    length = f" of {material.data['step']}" if material.data else ""
    steps = f"{plural(recipe['horizon'], 'step')}{length} ahead"
    facts = {
        "forecast": f"{recipe['data']['target']}, {steps}",
        "model": recipe["model"]["name"],
        "trials": f"{len(material.reading.trials)}",
        "computing": duration(_seconds(material.reading.trials) + _seconds(material.reading.finalists)),
        "tested on": plural(evaluation["windows"], "window") if evaluation else "nothing yet",
    }
    return _list(facts, "facts")


def cost(material: Material) -> Html:
    """Time and windows by what they were spent on."""
    title, trials = "What the sweep cost", material.reading.trials
    if not trials:
        return section("cost", title, missing("No trial was begun."))
    groups = {
        "trials with the full budget": [trial for trial in trials if trial.state == "complete"],
        "trials stopped early": [trial for trial in trials if trial.state == "pruned"],
        "trials that failed": [trial for trial in trials if trial.state == "failed"],
        "trials that did not end": [trial for trial in trials if trial.state == "running"],
        "finalists, with other seeds": list(material.reading.finalists),
    }
    rows = [_spent(name, group) for name, group in groups.items() if group]
    rows.append(_spent("all", [*trials, *material.reading.finalists]))
    table_of = table("Times are summed over trials that may have run side by side", rows, [len(rows) - 1])
    return section("cost", title, tag("p", _saved(material)), table_of)


def _spent(name: str, group: Iterable[TrialRecord]) -> dict[str, Content]:
    group = list(group)
    return {
        "what": name,
        "trainings": f"{len(group)}",
        "time": duration(_seconds(group)),
        "training windows": f"{sum(trial.windows_seen for trial in group):,}",
        "optimizer steps": f"{sum(int(_last(trial, 'steps')) for trial in group):,}",
    }


def _seconds(trials: Iterable[TrialRecord]) -> float:
    return sum(_last(trial, "seconds") for trial in trials)


def _last(trial: TrialRecord, key: str) -> float:
    return float((trial.results[-1].attributes.get(key) if trial.results else 0) or 0)


def _saved(material: Material) -> str:
    """How much early stopping left out, and the time from the beginning to the end."""
    trials, budget = material.reading.trials, material.recipe["budget"]["windows"]
    seen, full = sum(trial.windows_seen for trial in trials), budget * len(trials)
    told = f"Without early stopping the trials would have seen {full:,} training windows; they saw {seen:,}"
    told += f" ({seen / full:.0%})." if full else "."
    created, ended = (material.reading.attributes.get(key) for key in ("created", "ended"))
    if created and ended:
        wall = (datetime.fromisoformat(ended) - datetime.fromisoformat(created)).total_seconds()
        told += f" From the beginning to the end of the sweep it took {duration(wall)}."
    return told


def data(material: Material) -> Html:
    """The data as the check saw them."""
    title, it = "What the data are like", material.data
    if not it:
        why = "What the check of the data found was not kept. To see it: chronotune check and this sweep's recipe.yaml."
        return section("data", title, missing(why))
    warnings = it.get("warnings") or []
    nothing = tag("p", "The check found nothing to mend.")
    found = tag("ul", *(tag("li", one) for one in warnings)) if warnings else nothing
    begin, validation, test, end = (moment(it[key]) for key in ("start", "validation_start", "test_start", "end"))
    facts = {
        "source": it["data"],
        "series": f"{it['series']:,}",
        "rows": f"{it['rows']:,}, one every {it['step']}",
        "missing target values": f"{it['missing_targets']:,} before the test segment",
        "known in advance": ", ".join(it["known_future"]) or "nothing",
        "known only afterwards": ", ".join(it["past_only"]) or "nothing",
        "categories, as numbers learnt in training": ", ".join(it["encoded"]) or "none",
        "training": f"{begin} to {validation}",
        "validation": f"{validation} to {test}, {plural(it['validation_origins'], 'origin')}",
        "test": f"{test} to {end}, {plural(it['test_origins'], 'origin')}",
        "R2 of the last value, one step ahead": "unknown" if it["last_value_r2"] is None else str(it["last_value_r2"]),
    }
    heading = tag("h3", f"Findings: {plural(len(warnings), 'warning')}")
    return section("data", title, heading, found, _list(facts, "facts rows"))


def reproduce(material: Material) -> Html:
    """The commands that do it again, and what they rest on."""
    attributes, folder = material.reading.attributes, material.directory
    path = shlex.quote(f"{folder.parent.name}/{folder.name}")
    commands = [f"chronotune run {path}/recipe.yaml"]
    if attributes.get("winner"):
        force = "" if is_shipped(material.reading.evaluation) else " --force"  # what is not better goes out only so
        commands += [f"chronotune export {path} --to models/NAME{force}", "chronotune train models/NAME/recipe.yaml"]
    else:
        commands += [f"chronotune resume {path}"]
    identity: Mapping[str, str] = attributes.get("identity") or {}
    winner = attributes.get("winner") or {}
    facts = {
        "chronotune": attributes.get("chronotune", "unknown"),
        **{key: str(value) for key, value in identity.items()},
        **({"weights of the winner, SHA-256": winner["sha256"]} if winner.get("sha256") else {}),
        **({"weights of its refit, SHA-256": winner["refit_sha256"]} if "refit" in winner else {}),
    }
    about = (
        f"To be typed in the folder that holds {folder.parent.name}/. "
        f"The first command runs the same sweep on the same data; the others {_taken(winner)}. "
        "With several workers the order in which trials end is part of a search, so a sweep "
        "that is run again may propose other trials."
    )
    code = tag("pre", tag("code", "\n".join(commands)), tabindex="0")
    return section("reproduce", "How to do it again", tag("p", about), code, _list(facts, "facts rows"))


def _taken(winner: Mapping[str, Any]) -> str:
    """What the commands do with the winner, and what training its recipe gives."""
    if not winner:
        return "go on with it where it ended"
    if "refit" in winner:
        return f"take the refit of its winner ({winner['refit']}) and train that once more, to the same weights"
    if winner.get("challenger", BEST) == BEST:
        return "take its winner and train it once more, to the same score"
    return (
        f"take what went out ({winner['challenger']}) and train its tuned member once more: that one alone, not what "
        "was made of it, so the score is the member's"
    )


def terms() -> Html:
    """The words that a reader may not know."""
    meanings = _list(MEANINGS, "facts rows")
    return section("terms", "Words", tag("details", tag("summary", "What the words mean"), meanings))


def _list(facts: Mapping[str, Content], class_: str) -> Html:
    pairs = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())
    return tag("dl", *pairs, class_=class_)
