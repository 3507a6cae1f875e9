"""The progress of a running sweep: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live

from chronotune.finalists import latest
from chronotune.report import conclude, finalists_table, leaderboard_table, registration, summary

if TYPE_CHECKING:
    from chronotune.config.recipe import Recipe
    from chronotune.data.prepare import Dataset
    from chronotune.study import Reading, TrialRecord
    from chronotune.tracking import MirrorReport


def watcher(console: Console) -> _Live | _Lines:
    """Progress for this console: a live table on a terminal, plain lines in a pipe."""
    return _Live(console) if console.is_terminal else _Lines(console)


class _Lines:
    """One line for every result and every end of a trial."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[tuple[int, int | None], tuple[str, int]] = {}
        self._zero_shot_shown = False
        self.saw_any = False
        """Whether a sweep has begun to be driven."""

    def began(self, directory: Path, recipe: Recipe, dataset: Dataset, reading: Reading) -> None:
        """Say what is about to happen; what earlier drivers have done is no news."""
        self.saw_any = True
        self._print(summary(directory, recipe, dataset, reading.attributes["trials"]))
        for line in dataset.report.lines("warning"):
            self._print(line)
        self._seen = {_key(t): (t.state, t.windows_seen) for t in (*reading.trials, *reading.finalists)}
        if reading.trials:
            self._print(f"goes on with {len(reading.trials)} trials done or begun")
        else:
            for line in reading.attributes.get("said", ()):
                self._print(line)

    def update(self, reading: Reading) -> None:
        """Print what is new."""
        self._zero_shot(reading)
        for trial in (*reading.trials, *reading.finalists):
            now = (trial.state, trial.windows_seen)
            if trial.windows_seen + (trial.state == "failed") and self._seen.get(_key(trial)) != now:
                self._print(_line(trial, reading))
            self._seen[_key(trial)] = now

    def ended(self, directory: Path, reading: Reading) -> None:
        """Print the tables."""
        conclude(self._console, directory, reading)

    def registered(self, reading: Reading, mirrored: MirrorReport) -> None:
        """Say which version the winner became, or why it is none, where a registry is wanted."""
        if told := registration(reading, mirrored.version, mirrored.uri):
            self._print(told)

    def _zero_shot(self, reading: Reading) -> None:
        best = reading.zero_shot
        if best and not self._zero_shot_shown:
            self._zero_shot_shown = True
            objective = reading.attributes["recipe"]["objective"]
            self._print(
                f"zero-shot: {objective} {best['metrics'][objective]:.4f} "
                f"(context {best['context_length']}, covariates {best['covariates']})"
            )

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _key(trial: TrialRecord) -> tuple[int, int | None]:
    """Tells a trial from the others, and from the finalists' repeats, which have numbers of their own."""
    return trial.number, trial.seed


def _line(trial: TrialRecord, reading: Reading) -> str:
    recipe = reading.attributes["recipe"]
    last = trial.results[-1] if trial.results else None
    state = {"pruned": "stopped early", "failed": f"failed: {trial.reason}"}.get(trial.state, trial.state)
    name, progress = f"trial {trial.number}", f"{_done(reading.trials)}/{reading.attributes['trials']} trials done"
    if trial.seed is not None:
        chosen = reading.attributes["finalists"]
        wanted = len(chosen["trials"]) * len(chosen["seeds"])
        name = f"finalist: trial {trial.of} with seed {trial.seed}"
        progress = f"{_done(latest(reading.finalists))}/{wanted} trainings done"
    if last is None:
        return f"{name}: {state}"
    return (
        f"{name}: {last.windows_seen}/{recipe['budget']['windows']} windows, "
        f"{last.attributes.get('steps')} steps, {last.attributes.get('seconds', 0):.0f} s, "
        f"{recipe['objective']} {last.objective:.4f}, {state} [{progress}]"
    )


def _done(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state != "running" for trial in trials)


class _Live(_Lines):
    """A leaderboard, later with the finalists below it, that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def began(self, directory: Path, recipe: Recipe, dataset: Dataset, reading: Reading) -> None:
        """Say what is about to happen, then start the table."""
        super().began(directory, recipe, dataset, reading)
        self._live.start()

    def update(self, reading: Reading) -> None:
        """Redraw."""
        second = finalists_table(reading)
        rows = self._console.height - 8 - (0 if second is None else len(reading.attributes["finalists"]["trials"]) + 4)
        board = leaderboard_table(reading, max(5, rows), self._console.width)
        self._live.update(board if second is None else Group(board, second), refresh=True)

    def ended(self, directory: Path, reading: Reading) -> None:
        """Replace the live table by the final ones."""
        self._live.stop()
        super().ended(directory, reading)
