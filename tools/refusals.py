"""Print what a user is told about each kind of bad input, as a Markdown table: `python tools/refusals.py`.

Every case of the tests is given to the real command line (`chronotune run`) in an empty folder. Exits with 1 when
a case did not end with exit code 2, showed a traceback, or left something behind.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / "config"), str(TESTS / "data")]

from bad_inputs import bad_inputs  # noqa: E402  (of the tests, found by the line above)
from data_parts import PLANT, hourly, recipe_of, text_of  # noqa: E402
from test_bad_data import CASES  # noqa: E402

from chronotune.cli import main  # noqa: E402
from chronotune.config.load import dump_recipe  # noqa: E402


class Outcome(NamedTuple):
    """What one bad input led to."""

    title: str
    message: str
    clean: bool
    """Exit code 2, no traceback, nothing left behind."""


def outcome(title: str, arguments: list[str]) -> Outcome:
    """Run `chronotune run` in the current folder."""
    before, errors, sys.argv = sorted(Path.cwd().iterdir()), io.StringIO(), ["chronotune", "run", *arguments]
    code: object = 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code
    text = errors.getvalue().strip()
    clean = code == 2 and "Traceback" not in text and sorted(Path.cwd().iterdir()) == before
    return Outcome(title, text.removeprefix("chronotune: "), clean)


def of_configuration() -> Iterator[Outcome]:
    """Bad YAML and bad `--set`."""
    for case in bad_inputs():
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("my.yaml").write_text(case.text, encoding="utf-8")
            yield outcome(case.title, ["my.yaml", *(part for o in case.overrides for part in ("--set", o))])


def of_data() -> Iterator[Outcome]:
    """Bad files of data under a good recipe."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            data = {**PLANT, **case.data}
            content = case.content(text_of(hourly()))
            if isinstance(content, pl.DataFrame):
                content.write_csv(data["path"])
            elif content is not None:
                Path(data["path"]).write_bytes(content)
            Path("my.yaml").write_text(dump_recipe(recipe_of(data)), encoding="utf-8")
            yield outcome(case.name, ["my.yaml"])


if __name__ == "__main__":
    outcomes = [*of_configuration(), *of_data()]
    print("| bad input | message |\n|---|---|")
    for one in outcomes:
        cell = one.message.replace("|", "\\|").replace("\n", "<br>")
        print(f"| {one.title} | {cell}{'' if one.clean else ' **NOT CLEAN**'} |")
    print(f"\n{len(outcomes)} bad inputs, {sum(not one.clean for one in outcomes)} not refused cleanly")
    sys.exit(any(not one.clean for one in outcomes))
