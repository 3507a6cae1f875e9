"""Open reports in a headless browser: fail on any error in the console or a plot not drawn, and write screenshots.

python tools/look.py REPORT.html [...] --to FOLDER      (needs a Chromium: `chromium` on the path, or CHROMIUM=FILE)

The browser is spoken to through its DevTools pipe, so nothing but Python and the browser is needed. Each report is
opened at 1280 and at 400 pixels, light and dark, without a network. Wider than the window, it fails.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
SECONDS = 60.0
"""That a page may take until all of its plots are drawn."""
_LOUD = {"error", "warning", "assert"}


class Look(NamedTuple):
    """What one view of a page showed."""

    faults: tuple[str, ...]
    """Errors of the console, exceptions, requests, plots that were not drawn, text that runs out of the window."""
    height: int
    plots: int


class Browser:
    """A headless browser behind its DevTools pipe: null-terminated JSON on its file descriptors 3 and 4."""

    def __init__(self, program: str, profile: str) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        offline = ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}", "about:blank"]
        with _high(to_read, to_write) as (low, high):
            self._process = subprocess.Popen(
                [program, *flags, *offline],
                pass_fds=(3, 4),
                preexec_fn=lambda: (os.dup2(low, 3), os.dup2(high, 4))[0],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._count, self.events = b"", 0, list[dict[str, Any]]()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile is kept in `events`.

        Raises:
            RuntimeError: The browser refused it.
        """
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def close(self) -> None:
        """End it."""
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait()


@contextmanager
def _high(*descriptors: int) -> Iterator[list[int]]:
    """Copies of descriptors above 9, so that none of them is overwritten when another becomes 3 or 4."""
    copies = [fcntl.fcntl(own, fcntl.F_DUPFD, 10) for own in descriptors]
    try:
        yield copies
    finally:
        for copy in copies:
            os.close(copy)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile.

    Raises:
        SystemExit: There is none.
    """
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("look.py needs a Chromium, but there is none on the path. Install one, or name it in CHROMIUM")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(program, profile)
        try:
            yield opened
        finally:
            opened.close()


def look(opened: Browser, page: Path, width: int, scheme: str, picture: Path | None = None) -> Look:
    """Open a page in a new tab and see whether it is sound.

    Args:
        opened: The browser.
        page: The file.
        width: Of the window, in pixels.
        scheme: `light` or `dark`.
        picture: Where to write a screenshot of the whole page.
    """
    target = opened.call("Target.createTarget", url="about:blank")["targetId"]
    session = opened.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    opened.events.clear()
    for domain in ("Page", "Runtime", "Log", "Network"):
        opened.call(f"{domain}.enable", session)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.call("Emulation.setDeviceMetricsOverride", session, **size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.call("Emulation.setEmulatedMedia", session, features=[feature])
    opened.call("Page.navigate", session, url=page.resolve().as_uri())
    wanted, drawn = _wait(opened, session)
    height, content = (int(_value(opened, session, f"document.documentElement.scroll{side}")) for side in _SIDES)
    faults = [*faults_of(opened.events)]
    faults += [f"{wanted} plots, but {drawn} drawn"] if drawn != wanted else []
    if content > width:
        faults.append(f"{content} pixels wide in a window of {width}: {_value(opened, session, _WIDER)}")
    if picture:
        _photograph(opened, session, picture, width, height)
    opened.call("Target.closeTarget", targetId=target)
    return Look(tuple(faults), height, drawn)


_SIDES = ("Height", "Width")
_WIDER = """(() => {
  const out = element => element.getBoundingClientRect().left + element.scrollWidth > innerWidth;
  const all = [...document.querySelectorAll('body *')].filter(element => !element.closest('.scroll, .plot, pre'));
  return all.filter(out).filter(element => ![...element.children].some(out)).map(one => one.outerHTML.slice(0, 80))[0]
    ?? 'a text';
})()"""
"""The innermost element that goes beyond the window, boxes that scroll apart."""


def _wait(opened: Browser, session: str) -> tuple[int, int]:
    """The number of plots that the page has, and of those that are drawn when it says so, or when time is up."""
    end = time.monotonic() + SECONDS
    ready = "document.readyState === 'complete' && document.documentElement.dataset.drawn !== undefined"
    while not _value(opened, session, ready) and time.monotonic() < end:
        time.sleep(0.1)
    wanted = _value(opened, session, "document.querySelectorAll('script[data-for]').length")
    drawn = _value(opened, session, "document.querySelectorAll('.plot .main-svg:first-child').length")
    return int(wanted or 0), int(drawn or 0)


def _value(opened: Browser, session: str, expression: str) -> Any:
    return opened.call("Runtime.evaluate", session, expression=expression, returnByValue=True)["result"].get("value")


def _photograph(opened: Browser, session: str, picture: Path, width: int, height: int) -> None:
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = opened.call("Page.captureScreenshot", session, captureBeyondViewport=True, clip=clip)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(base64.b64decode(shot["data"]))


def faults_of(events: list[dict[str, Any]]) -> Iterator[str]:
    """What the browser complained of, and what a page that should be whole asked the network for."""
    for event in events:
        told = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                detail = told["exceptionDetails"]
                yield f"exception: {detail.get('exception', {}).get('description', detail.get('text'))}"
            case "Runtime.consoleAPICalled" if told["type"] in _LOUD:
                yield f"console: {' '.join(str(one.get('value', one.get('description'))) for one in told['args'])}"
            case "Log.entryAdded" if told["entry"]["level"] in _LOUD:
                yield f"log: {told['entry']['text']}"
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith(("file:", "data:", "blob:")):
                yield f"request: {told['request']['url']}"


def main() -> int:
    """Look at all reports; 1 when one of them is not sound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, help="a folder for screenshots")
    asked, unsound = parser.parse_args(), 0
    with browser() as opened:
        for report in asked.reports:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    picture = (
                        asked.to / f"{report.parent.name}-{report.stem}-{width}-{scheme}.png" if asked.to else None
                    )
                    seen = look(opened, report, width, scheme, picture)
                    print(f"{report} {width} {scheme}: {seen.plots} plots, {seen.height} pixels high")
                    print(*(f"  {fault}" for fault in seen.faults), sep="\n", end="\n" if seen.faults else "")
                    unsound += bool(seen.faults)
    return min(unsound, 1)


if __name__ == "__main__":
    sys.exit(main())
