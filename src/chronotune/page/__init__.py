"""The report of a sweep: `report.html`, one file that opens offline in any browser.

Every part is a reading of the study and the files beside it. What is not there, the page says. The same sweep gives the
same file, whenever it is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from chronotune.page.answer import contenders, verdict
from chronotune.page.facts import cost, data, overview, reproduce, terms
from chronotune.page.forecasts import fans, segments, uncertainty
from chronotune.page.html import Html, join, tag
from chronotune.page.material import DATA, Material, gather
from chronotune.page.search import search

NAME = "report.html"
_PARTS = {
    "Is it better": contenders,
    "Forecasts": fans,
    "Errors": segments,
    "Uncertainty": uncertainty,
    "Search": search,
    "Cost": cost,
    "Data": data,
    "Do it again": reproduce,
}
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself makes sure that the page loads nothing: it is whole."""


def write_report(directory: str | Path, to: Path | None = None, about: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a running, dead or finished sweep.

    Args:
        directory: The sweep's folder.
        to: The file to write; by default `report.html` in the sweep's folder.
        about: What `data.describe.describe` tells of the data; it is kept beside the report for the next one.

    Returns:
        The file, which is replaced whole or not at all.

    Raises:
        InputError: There is no such sweep.
    """
    directory = Path(directory).resolve()
    if about is not None:
        (directory / DATA).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    target = (to / NAME if to.is_dir() else to) if to else directory / NAME
    page = report_html(gather(directory))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.tmp")
    unfinished.write_text(page, encoding="utf-8")
    return unfinished.replace(target)


def report_html(material: Material) -> str:
    """The whole page."""
    name = material.reading.name
    parts = [part(material) for part in _PARTS.values()]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{name}: report"),
        tag("style", _file("page.css")),
    )
    top = tag("header", tag("p", "Report of a tuning sweep", class_="over"), tag("h1", name), overview(material))
    scripts = [tag("script", Html(get_plotlyjs())), tag("script", _file("page.js"))]
    no_script = tag("noscript", tag("p", "Plots need JavaScript; tables and text do not.", class_="missing"))
    main = tag("main", top, verdict(material), _navigation(parts), no_script, *parts, terms())
    body = tag("body", tag("a", "To the verdict", href="#verdict", class_="skip"), main, *scripts)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _navigation(parts: list[Html]) -> Html:
    anchors = [part.partition('aria-labelledby="')[2].partition('"')[0] for part in parts]
    links = (tag("a", title, href=f"#{anchor}") for title, anchor in zip(_PARTS, anchors, strict=True))
    return tag("nav", join(links), aria_label="Parts of this report")


def _file(name: str) -> Html:
    return Html((files("chronotune.page") / name).read_text(encoding="utf-8"))
