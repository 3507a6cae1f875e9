"""HTML that cannot be injected into: plain text is escaped wherever it enters, only `Html` passes as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

from chronotune.metrics import without_nan


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content: TypeAlias = str | int | float | None
Plot: TypeAlias = dict[str, Any]
"""A figure as plotly.js takes it: `data`, `layout`, and `height` in pixels. `--name` is a colour of the page."""
_EMPTY = {"meta", "link", "br"}
_LEFT = {"model", "state", "mode", "covariates", "segment", "what", "kind", "reason"}


def text(content: Content) -> Html:
    """Escaped, unless it is HTML already."""
    return content if isinstance(content, Html) else Html(escape("" if content is None else str(content)))


def join(parts: Iterable[Content]) -> Html:
    """One after the other."""
    return Html("\n".join(text(part) for part in parts))


def tag(name: str, /, *children: Content, **attributes: Content) -> Html:
    """An element; `aria_label=` gives the attribute `aria-label`, `class_=` gives `class`, None is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>" if name in _EMPTY else f"<{name}{shown}>{join(children)}</{name}>")


def section(anchor: str, title: str, *children: Content) -> Html:
    """A part of the page under its heading."""
    return tag("section", tag("h2", title, id=anchor), *children, aria_labelledby=anchor)


def missing(what: str) -> Html:
    """Says that a part cannot be shown, and why."""
    return tag("p", what, class_="missing")


def table(caption: str, rows: Sequence[Mapping[str, Content]], marked: Sequence[int] = (), shown: int = 12) -> Html:
    """Rows of equal keys under their keys; those behind the first `shown` can be unfolded.

    Args:
        caption: What it shows.
        rows: Cells by heading.
        marked: Numbers of rows that stand out.
        shown: Rows that are visible at once.
    """
    if not rows:
        return Html("")
    first, rest = rows[:shown], rows[shown:]
    parts = [_table(caption, first, marked)]
    if rest:
        more = _table(f"{caption} (the others)", rest, [row - shown for row in marked])
        parts.append(tag("details", tag("summary", f"{len(rest)} more"), more))
    return join(parts)


def _table(caption: str, rows: Sequence[Mapping[str, Content]], marked: Sequence[int]) -> Html:
    headings = list(rows[0])
    head = tag("tr", *(tag("th", name, scope="col", class_=_side(name)) for name in headings))
    lines = [
        tag(
            "tr",
            *(
                tag("th" if column == 0 else "td", cell, scope="row" if column == 0 else None, class_=_side(name))
                for column, (name, cell) in enumerate(row.items())
            ),
            class_="marked" if number in marked else None,
        )
        for number, row in enumerate(rows)
    ]
    whole = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", *lines))
    # wide tables scroll by themselves, with the keyboard too
    return tag("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _side(heading: str) -> str | None:
    return "left" if heading in _LEFT else None


def figure(anchor: str, plot: Plot, title: str, caption: str, numbers: Html | None = None) -> Html:
    """A plot with its title, what one should see in it, and its numbers for those who do not see it.

    Args:
        anchor: A word that names it on the page.
        plot: What to draw.
        title: What it shows.
        caption: How to read it.
        numbers: A table.
    """
    box = tag(
        "div", class_="plot", id=f"plot-{anchor}", role="img", aria_label=f"{title}. {caption}", style=_height(plot)
    )
    box = (
        tag("div", box, class_="scroll wide", role="region", tabindex="0", aria_label=title) if "wide" in plot else box
    )
    unfolded = [tag("details", tag("summary", "The numbers"), numbers)] if numbers else []
    shown = [tag("h3", title), *_legend(anchor, plot), box, data(f"plot-{anchor}", plot)]
    return tag("figure", *shown, tag("figcaption", caption), *unfolded)


def _legend(anchor: str, plot: Plot) -> list[Html]:
    """A button for each named line, which shows or hides it; none for a single one.

    Plotly's own legend cannot do it on a phone: a row a name, and what is too much for it scrolls.
    """
    traces = plot["data"]
    lines = [number for number, one in enumerate(traces) if "dash" in one.get("line", {})]
    named = [number for number in lines if traces[number].get("name") and traces[number].get("showlegend", True)]
    buttons = [_button(anchor, traces, number) for number in named]
    return [tag("div", *buttons, class_="legend", role="group", aria_label="Lines")] if len(buttons) > 1 else []


def _button(anchor: str, traces: Sequence[Mapping[str, Any]], number: int) -> Html:
    trace = traces[number]
    group = trace.get("legendgroup")
    together = [n for n, one in enumerate(traces) if n == number or (group and one.get("legendgroup") == group)]
    kind = "area" if trace.get("fill") else trace["line"]["dash"]
    swatch = tag("span", class_=f"swatch {kind}", style=f"color:var({trace['line']['color']})", aria_hidden="true")
    return tag(
        "button",
        swatch,
        Html(trace["name"]),  # escaped for plotly already
        type="button",
        aria_pressed="false" if trace.get("visible") == "legendonly" else "true",
        data_plot=f"plot-{anchor}",
        data_traces=" ".join(map(str, together)),
    )


def _height(plot: Plot) -> str:
    return f"height:{plot.get('height', 340)}px"


def data(target: str, value: object) -> Html:
    """JSON inside the page, from which no text can break out."""
    code = json.dumps(without_nan(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        code = code.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Html(code), type="application/json", data_for=target)
