"""The top of the page: should the tuned model be shipped, by how much is it better, and is that luck?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chronotune.blending import composition
from chronotune.openings import Openings
from chronotune.page.html import Content, Html, Plot, figure, join, missing, section, table, tag
from chronotune.page.material import Material
from chronotune.page.plots import BAD, CHALLENGER, MUTED, ZERO_SHOT, label, plot
from chronotune.page.words import AGAIN, METRICS, figure_of, moment, percent, plural

_DECIDED = {
    "ship the challenger": ("good", "Ship the tuned model"),
    "keep zero-shot": ("keep", "Keep the model as it came"),
    "not enough test windows": ("open", "Not enough test windows to tell"),
}


def verdict(material: Material) -> Html:
    """The verdict in a sentence for somebody who has read nothing else."""
    it = material.verdict
    if not it:
        kind, title, why = "open", *_without_verdict(material)
        return _box(kind, title, why, "")
    kind, title = _DECIDED.get(it["decision"], ("open", str(it["decision"])))
    return _box(kind, title, f"{_in_words(material, it)} {_refitted(material)}".strip(), str(it["sentence"]))


def _refitted(material: Material) -> str:
    """That other weights go out than were judged here."""
    mark = (material.reading.attributes.get("winner") or {}).get("refit")
    if mark is None:
        return ""
    return (
        f"What export writes is the same configuration trained once more, with validation added: {mark}. The figures "
        "on this page are those of the model before that."
    )


def _box(kind: str, title: str, why: str, exact: str) -> Html:
    parts = [tag("p", title, class_="decision"), tag("p", why)]
    parts += [tag("p", f"Exactly: {exact}", class_="exact")] if exact else []
    return tag("div", *parts, class_=f"verdict {kind}", id="verdict")


def _in_words(material: Material, it: Mapping[str, Any]) -> str:
    days = f"{it['days']} {'days' if it['unit'] == 'days' else 'forecasts'} of the test segment"
    if it["gain"] is None:
        return f"On {days}, which were not used for tuning, the two models could not be compared by numbers."
    better = "better" if it["gain"] >= 0 else "worse"
    told = (
        f"On {days}, which were not used for tuning, the forecasts of the tuned model ({it['challenger']}) are "
        f"{abs(it['gain']):.1%} {better} than those of the untouched model ({it['objective'].upper()}, lower is better)"
    )
    if it["low"] is not None and it["high"] is not None:
        told += f". Allowing for luck, the true gain lies between {percent(it['low'])} and {percent(it['high'])}"
        told += " (95% interval)"
        if it["low"] <= 0 <= it["high"]:
            told += ", so the difference may be luck"
    return f"{told}. {_strongest(material)}".strip()


def _strongest(material: Material) -> str:
    """Says it when neither of the compared pair is the best of the table."""
    rows = [row for row in material.evaluation["rows"] if row.get(material.objective) is not None]
    ours = [row[material.objective] for row in rows if row["model"] in material.pair]
    best = min(rows, key=lambda row: row[material.objective], default=None)
    if best is None or not ours or best[material.objective] >= min(ours):
        return ""
    return f"Neither is the best of the table below: {best['model']} is, with {best[material.objective]:.4g}."


def _without_verdict(material: Material) -> tuple[str, str]:
    trials = material.reading.trials
    if material.evaluation:
        return "No verdict", "The test windows were scored, but this sweep was evaluated before there were verdicts."
    if trials and all(trial.state == "failed" for trial in trials):
        return (
            "No verdict: every trial failed",
            "Nothing was tuned, so nothing can be compared, and the test segment stays unopened. "
            "The reasons are below the leaderboard; the log of a trial tells more.",
        )
    if material.reading.winner is None:
        return "No verdict yet", "No trial has reached its full budget so far, so there is no winner to evaluate."
    return "No verdict yet", "The sweep ended, or still runs, before its winner was evaluated on the test windows."


def contenders(material: Material) -> Html:
    """Everyone on the same test windows, and the gain with its interval."""
    title, evaluation = "Is it better, and is that luck?", material.evaluation
    if not evaluation:
        return section("contenders", title, missing("The test windows were not scored: there is no table of models."))
    pair = material.pair
    marked = [number for number, row in enumerate(evaluation["rows"]) if row["model"] in pair]
    openings = Openings.of(evaluation)
    opened = f"; they have been {openings}" if openings.most else ""
    first, last = moment(evaluation["first_origin"]), moment(evaluation["last_origin"])
    about = (
        f"All models forecast the same {plural(evaluation['windows'], 'window')} of "
        f"{plural(evaluation['horizon'], 'step')}, that begin from {first} to {last}. "
        f"No trial has seen them{opened}."
    )
    rows = [_contender(row) for row in evaluation["rows"]]
    parts = [tag("p", about), table("Models on the test windows; lower is better but for r2", rows, marked, 20)]
    return section("contenders", title, *parts, _gains(material), _days(material))


def _contender(row: Mapping[str, Any]) -> dict[str, Content]:
    told = {"gain": _gain_cell(row), "95% interval": _interval(row)} if "gain" in row else {}
    scored = {"on validation": figure_of(row["validation"], ".4g")} if "validation" in row else {}
    return {
        "model": join([row["model"], tag("small", _inputs(row))]),
        **told,
        **{metric: figure_of(row.get(metric), ".4g") for metric in METRICS},
        **scored,
    }


def _inputs(row: Mapping[str, Any]) -> str:
    """What a model sees, or what a blend is made of."""
    if row.get("members"):
        return composition(row["members"])
    seen = [f"{row['context_length']:,} steps"] if row["context_length"] else []
    return ", ".join([*seen, f"covariates: {row['covariates']}"])


def _gain_cell(row: Mapping[str, Any]) -> str:
    return "" if row["gain"] is None else percent(row["gain"])


def _interval(row: Mapping[str, Any]) -> str:
    return "" if row["gain_low"] is None else f"{percent(row['gain_low'])} to {percent(row['gain_high'])}"


def _gains(material: Material) -> Html:
    """One point a model, of which only the challenger's was chosen before the test segment was opened."""
    rows = [
        {"model": row["model"], "gain": row["gain"], "low": row["gain_low"], "high": row["gain_high"]}
        for row in material.evaluation["rows"]
        if row.get("gain_low") is not None
    ]
    it = material.verdict
    if not rows and it.get("low") is not None:
        rows = [{"model": it["challenger"], "gain": it["gain"], "low": it["low"], "high": it["high"]}]
    if not rows:
        return missing("The gain has no interval: there are too few test windows, or they were scored before verdicts.")
    caption = (
        "To the right of the line is better than the untouched model. A bar that crosses the line may be luck. "
        f"Only the verdict's pair ({' and '.join(material.pair)}) was chosen before the test windows were opened."
    )
    return figure("gain", _gain_plot(rows, material.pair[0]), "Gain over zero-shot with its 95% interval", caption)


def _gain_plot(rows: Sequence[Mapping[str, Any]], challenger: str) -> Plot:
    colours = [CHALLENGER if row["model"] == challenger else MUTED for row in rows]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [100 * row["gain"] for row in rows],
        "y": [label(row["model"]) for row in rows],
        "marker": {"size": 11, "color": colours},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (row["high"] - row["gain"]) for row in rows],
            "arrayminus": [100 * (row["gain"] - row["low"]) for row in rows],
            "color": MUTED,
        },
        "hovertemplate": "%{y}: %{x:+.1f}%<extra></extra>",
    }
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "line": {"color": ZERO_SHOT}}
    return plot(
        [points],
        "gain, %",
        "",
        150 + 34 * len(rows),
        shapes=[line],
        yaxis={"type": "category", "autorange": "reversed"},
    )


def _days(material: Material) -> Html:
    days = material.windows.get("days") or {}
    if not days or len(days["days"]) != len(days["challenger"]):
        return missing("Losses by day were not kept with this evaluation. " + AGAIN)
    saved = [
        None if None in (ours, theirs) else theirs - ours
        for ours, theirs in zip(days["challenger"], days["zero_shot"], strict=True)
    ]
    bars = {
        "type": "bar",
        "x": days["days"],
        "y": saved,
        "marker": {"color": [BAD if (one or 0) < 0 else CHALLENGER for one in saved]},
        "hovertemplate": "%{x}: %{y:+.3g}<extra></extra>",
    }
    better, known = sum((one or 0) > 0 for one in saved), sum(one is not None for one in saved)
    caption = (
        f"Above 0 the tuned model did better that day: on {better} of {plural(known, 'day')}. A gain that rests on a "
        "few high bars is less sure than one that comes a little every day."
    )
    title = f"What tuning saved each day, in {material.objective.upper()}"
    return figure("days", plot([bars], "first day of the forecast", "loss saved"), title, caption)
