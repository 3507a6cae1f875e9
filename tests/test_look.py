"""The look at a report in a browser: what it complains of, and, where there is a browser, a look at a real one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from look import browser, faults_of, look

from chronotune.page import write_report
from page_parts import NASTY, evaluated


def test_what_counts_as_a_fault() -> None:
    """Exceptions, errors, and anything asked from the network; not what a page merely says."""
    events = [
        {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": {"text": "Uncaught"}}},
        {"method": "Runtime.consoleAPICalled", "params": {"type": "error", "args": [{"value": "no"}]}},
        {"method": "Runtime.consoleAPICalled", "params": {"type": "log", "args": [{"value": "fine"}]}},
        {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": "blocked"}}},
        {"method": "Network.requestWillBeSent", "params": {"request": {"url": "https://cdn.example/x.js"}}},
        {"method": "Network.requestWillBeSent", "params": {"request": {"url": "file:///report.html"}}},
    ]
    assert [fault.partition(":")[0] for fault in faults_of(events)] == ["exception", "console", "log", "request"]


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on the path")
def test_a_report_in_a_browser(tmp_path: Path) -> None:
    """Every plot is drawn at 400 pixels without an error; a page that is broken is seen to be."""
    evaluated(tmp_path, segment=NASTY)
    report, broken = write_report(tmp_path), tmp_path / "broken.html"
    text = report.read_text(encoding="utf-8")
    broken.write_text(text.replace("</main>", '<p style="width:999px">x</p><script>nothing()</script></main>'))
    with browser() as opened:
        assert look(opened, report, 400, "dark", tmp_path / "shot.png").faults == ()
        faults = " ".join(look(opened, broken, 400, "light").faults)
    assert "nothing is not defined" in faults
    assert "pixels wide" in faults
    assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")
