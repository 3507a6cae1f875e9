"""Small pieces that plots are made of. A colour `--name` is one of the page's, and follows light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from chronotune.page.html import Plot

CHALLENGER, ZERO_SHOT, OTHER, INK, MUTED, BAD = "--challenger", "--zero-shot", "--other", "--ink", "--muted", "--bad"


def label(name: object) -> str:
    """A user's name as plotly.js shows it: it takes text for HTML."""
    return escape(str(name), quote=False)


def plot(traces: Sequence[dict[str, Any]], x: str, y: str, height: int = 340, **layout: Any) -> Plot:
    """Traces over two named axes."""
    axes = {"xaxis": {"title": {"text": label(x)}}, "yaxis": {"title": {"text": label(y)}}}
    for name, axis in axes.items():
        axis.update(layout.pop(name, {}))
    return {"data": list(traces), "layout": {**axes, **layout}, "height": height}


def line(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, **more: Any) -> dict[str, Any]:
    """A line; `dash` and `width` are its own, all else a trace's."""
    style = {"color": colour, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": label(name), "line": style, **more}


def band(x: Sequence[Any], low: Sequence[Any], high: Sequence[Any], name: str, colour: str) -> list[dict[str, Any]]:
    """The area between two lines."""
    edge: dict[str, Any] = {"width": 0, "hoverinfo": "skip", "legendgroup": name}
    upper = line(x, high, name, colour, fill="tonexty", fillcolor=colour, **edge)
    return [line(x, low, name, colour, showlegend=False, **edge), upper]


def level(value: float, name: str) -> dict[str, Any]:
    """A dotted horizontal line with its name, as a part of a layout."""
    return {
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": value,
                "y1": value,
                "line": {"color": ZERO_SHOT, "dash": "dot", "width": 2},
            }
        ],
        "annotations": [
            {
                "xref": "paper",
                "x": 1,
                "y": value,
                "xanchor": "right",
                "yanchor": "bottom",
                "text": label(name),
                "showarrow": False,
                "font": {"color": ZERO_SHOT},
            }
        ],
    }


def style_of(model: str, pair: tuple[str, str]) -> dict[str, str]:
    """The colour and dash of a model: told apart without seeing colours."""
    if model == pair[0]:
        return {"colour": CHALLENGER, "dash": "solid"}
    return {"colour": ZERO_SHOT, "dash": "dash"} if model == pair[1] else {"colour": OTHER, "dash": "dot"}
