"""What the forecasts look like, where they are good, and whether their uncertainty can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from chronotune.page.html import Html, Plot, figure, missing, section, table, tag
from chronotune.page.material import Material
from chronotune.page.plots import BAD, CHALLENGER, INK, MUTED, ZERO_SHOT, band, label, line, plot, style_of
from chronotune.page.words import AGAIN, figure_of

_ROLES = {
    "typical": ("A typical window", "Half of the test windows were forecast better than this one, half worse."),
    "best": ("The best window", "The window that the tuned model forecast best."),
    "worst": (
        "The worst window",
        "The window that the tuned model forecast worst. Could anybody have known?",
    ),
    "against": ("Where tuning hurt most", "The window in which the untouched model was furthest ahead."),
}
_SHOWN_SEGMENTS = 30


def fans(material: Material) -> Html:
    """Forecasts of single windows beside what came true."""
    title, windows = "What the forecasts look like", material.windows.get("windows") or []
    if not windows:
        why = "Forecasts of single windows were not kept with this evaluation. " + AGAIN
        return section("fans", title, missing(why if material.evaluation else "No forecast of the test windows yet."))
    about = (
        "The thin line is what really happened. The thick line is the tuned model's median forecast, made at the "
        "dotted vertical line, the dashed one zero-shot's; the inner area should hold half of the real values, the "
        "outer one 90% of them."
    )
    return section("fans", title, tag("p", about), tag("div", *_fans(material, windows), class_="grid"))


def _fans(material: Material, windows: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    for window in windows:
        title, caption = _ROLES[window["role"]]
        loss = window["loss"]
        ours, theirs = (figure_of(loss.get(model), ".4g") for model in material.pair)
        series = f" Series: {window['series']}." if material.data.get("series", 1) > 1 else ""
        told = f"{caption}{series} Its loss: {ours}, untouched {theirs}."
        yield figure(f"fan-{window['role']}", _fan(window, material), title, told)


def _fan(window: Mapping[str, Any], material: Material) -> Plot:
    challenger, zero_shot = material.pair
    past, actual, forecasts = window["past"], window["actual"], window["forecasts"]
    start, step = datetime.fromisoformat(window["start"]), timedelta(seconds=window["step_seconds"])
    times = [(start + number * step).isoformat() for number in range(len(past) + len(actual))]
    ahead = times[len(past) :]
    low, inner_low, median, inner_high, high = forecasts[challenger]
    traces = [
        *band(ahead, low, high, "90%", "--band-outer"),
        *band(ahead, inner_low, inner_high, "50%", "--band-inner"),
        line(times, [*past, *actual], "what came true", INK, width=1.5),
        line(ahead, forecasts[zero_shot][2], "zero-shot", ZERO_SHOT, dash="dash"),
        line(ahead, median, "tuned", CHALLENGER, width=2.5),
    ]
    origin = {"type": "line", "x0": ahead[0], "x1": ahead[0], "yref": "paper", "y0": 0, "y1": 1}
    origin["line"] = {"color": MUTED, "dash": "dot", "width": 1}
    return plot(traces, "", str(material.recipe["data"]["target"]), 380, shapes=[origin], hovermode="x")


def segments(material: Material) -> Html:
    """Errors by horizon step, hour, weekday, series and the recipe's own columns."""
    title = "Where it is good and where it is not"
    if not material.segments:
        return section("segments", title, missing("Errors by hour and weekday were not kept, or nothing was scored."))
    several = "series" in material.segments
    metric = "mase" if several else "mae"
    unit = "MASE" if several else f"mean absolute error in units of {material.recipe['data']['target']}"
    charts = [_segment(material, kind, metric, unit) for kind in material.segments]
    about = "Lower is better. A touch on a name shows or hides its line; those with a dashed frame are hidden at first."
    return section("segments", title, tag("p", about), tag("div", *charts, class_="grid"))


def _segment(material: Material, kind: str, metric: str, unit: str) -> Html:
    rows, key = material.segments[kind], "step" if kind == "step" else "segment"
    places = list(dict.fromkeys(row[key] for row in rows))
    by_model: dict[str, dict[Any, Any]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row[key]] = row.get(metric)
    ours = by_model.get(material.pair[0], {})
    extremes, hidden = _extremes(ours, places, {"step": "step ", "hour": "hour "}.get(kind, "")), ""
    if kind not in ("step", "hour") and len(places) > _SHOWN_SEGMENTS:
        places = sorted(places, key=lambda place: -(ours.get(place) or 0))[:_SHOWN_SEGMENTS]
        hidden = f" Only the {_SHOWN_SEGMENTS} with the highest errors are shown."
    ordered = kind in ("step", "hour")
    mode = "lines" if ordered else "markers+lines" if kind == "weekday" else "markers"
    traces = [_by_place(model, values, places, material, mode) for model, values in by_model.items()]
    axis: dict[str, Any] = {} if ordered else {"type": "category", "automargin": True}
    if kind == "weekday":  # seven that stand upright side by side, on a phone too
        axis |= {"tickvals": places, "ticktext": [str(place)[:3] for place in places], "tickangle": 0}
    name = {"step": "steps ahead", "hour": "hour of the day", "weekday": "weekday"}.get(kind, kind)
    numbers = table(f"{unit} by {name}", list(_by_numbers(by_model, places, name)), shown=31)
    height = 340 if ordered or len(places) < 12 else 420
    chart = plot(traces, name, metric.upper(), height, xaxis=axis, yaxis={"rangemode": "tozero"})
    return figure(
        f"by-{list(material.segments).index(kind)}", chart, f"Error by {name}: {unit}", extremes + hidden, numbers
    )


def _by_place(
    model: str, values: Mapping[Any, Any], places: Sequence[Any], material: Material, mode: str
) -> dict[str, Any]:
    shown: dict[str, Any] = {} if model in material.shown_models else {"visible": "legendonly"}
    shown |= {"mode": mode, "marker": {"size": 8}}
    names = list(places) if mode == "lines" else [label(place) for place in places]
    style = style_of(model, material.pair)
    return line(names, [values.get(place) for place in places], model, **style, **shown)


def _by_numbers(
    by_model: Mapping[str, Mapping[Any, Any]], places: Sequence[Any], name: str
) -> Iterator[dict[str, str]]:
    for place in places:
        scores = {model: figure_of(values.get(place), ".4g") for model, values in by_model.items()}
        yield {name: str(place), **scores}


def _extremes(values: Mapping[Any, Any], places: Sequence[Any], prefix: str) -> str:
    """Where the tuned model is best and worst, in a sentence."""
    known = sorted((values[place], str(place)) for place in places if values.get(place) is not None)
    if not known or known[0][1] == known[-1][1]:
        return "The tuned model beside the others."
    return (
        f"The tuned model errs least at {prefix}{known[0][1]} ({known[0][0]:.4g}) and most at "
        f"{prefix}{known[-1][1]} ({known[-1][0]:.4g})."
    )


def uncertainty(material: Material) -> Html:
    """Calibration and residuals."""
    title, windows = "Can its uncertainty be trusted?", material.windows
    if not windows.get("calibration"):
        why = "Calibration and residuals were not kept with this evaluation. " + AGAIN
        return section("uncertainty", title, missing(why if material.evaluation else "Nothing was forecast yet."))
    return section("uncertainty", title, tag("div", _calibration(material), _residuals(material), class_="grid"))


def _calibration(material: Material) -> Html:
    levels, shares = material.windows["levels"], material.windows["calibration"]
    traces = [line([0, 1], [0, 1], "perfect", MUTED, dash="dot", hoverinfo="skip")]
    for model, share in shares.items():
        shown = {} if model in material.pair else {"visible": "legendonly"}
        traces.append(line(levels, share, model, **style_of(model, material.pair), **shown))
    numbers = [
        {"quantile": figure_of(level), **{model: figure_of(share[row], ".1%") for model, share in shares.items()}}
        for row, level in enumerate(levels)
    ]
    caption = (
        "Each quantile should have that share of the actual values below it: the nearer to the dotted diagonal, the "
        "more honest the forecast. Above it throughout, the forecasts are too high; below it, too low. A curve steeper "
        "than the diagonal in the middle means intervals wider than need be, a flatter one intervals that are too "
        "narrow."
    )
    chart = plot(traces, "promised share of values below", "actual share", xaxis={"range": [0, 1]})
    chart["layout"]["yaxis"]["range"] = [0, 1]
    table_of = table("Share of actual values at or below each quantile", numbers, shown=20)
    return figure("calibration", chart, "Calibration", caption, table_of)


def _residuals(material: Material) -> Html:
    residuals, pair = material.windows["residuals"], material.pair
    edges, models = residuals["bins"], residuals["models"]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    traces = []
    for model, about in models.items():
        total = sum(about["counts"]) or 1
        shares = [100 * count / total or None for count in about["counts"]]
        shown = {} if model in pair else {"visible": "legendonly"}
        style = style_of(model, pair)
        traces.append(line(middles, shares, model, **style, **shown))
        traces[-1]["line"]["shape"] = "hvh"
    bias = (models.get(pair[0]) or {}).get("mean")
    unit = "seasonal errors of the series" if residuals["unit"] == "scale" else f"{material.recipe['data']['target']}"
    lean = (
        "" if bias is None else f" On average the tuned model is {abs(bias):.3g} too {'low' if bias > 0 else 'high'}."
    )
    caption = f"Errors of the median forecast; they should be centred at 0 and narrow.{lean} Ends hold all beyond."
    numbers = [
        {"model": model, "mean": figure_of(one["mean"], ".3g"), "deviation": figure_of(one["deviation"], ".3g")}
        for model, one in models.items()
    ]
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": BAD, "width": 1}}
    chart = plot(traces, f"actual - median, {unit}", "% of values, logarithmic", shapes=[zero], yaxis={"type": "log"})
    return figure("residuals", chart, "Residuals", caption, table("Mean and standard deviation", numbers))
