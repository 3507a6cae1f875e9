"""The look at a report in a browser: what it complains of, and, where there is a browser, a look at a real one."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from chronotune.page import write_report
from page_parts import NASTY, evaluated


@pytest.fixture
def tool() -> ModuleType:
    """tools/look.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("look", Path(__file__).parents[1] / "tools" / "look.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_counts_as_a_fault(tool: ModuleType) -> None:
    """Exceptions, errors, and anything asked from the network; not what a page merely says."""
    events = [
        {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": {"text": "Uncaught"}}},
        {"method": "Runtime.consoleAPICalled", "params": {"type": "error", "args": [{"value": "no"}]}},
        {"method": "Runtime.consoleAPICalled", "params": {"type": "log", "args": [{"value": "fine"}]}},
        {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": "blocked"}}},
        {"method": "Network.requestWillBeSent", "params": {"request": {"url": "https://cdn.example/x.js"}}},
        {"method": "Network.requestWillBeSent", "params": {"request": {"url": "file:///report.html"}}},
    ]
    assert [fault.partition(":")[0] for fault in tool.faults_of(events)] == ["exception", "console", "log", "request"]


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on the path")
def test_a_report_in_a_browser(tool: ModuleType, tmp_path: Path) -> None:
    """Every plot is drawn at 400 pixels without an error; a page that is broken is seen to be."""
    evaluated(tmp_path, segment=NASTY)
    report, broken = write_report(tmp_path), tmp_path / "broken.html"
    text = report.read_text(encoding="utf-8")
    broken.write_text(text.replace("</main>", '<p style="width:999px">x</p><script>nothing()</script></main>'))
    with tool.browser() as opened:
        assert tool.look(opened, report, 400, "dark", tmp_path / "shot.png").faults == ()
        faults = " ".join(tool.look(opened, broken, 400, "light").faults)
    assert "nothing is not defined" in faults
    assert "pixels wide" in faults
    assert "width:999px" in faults
    assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")
