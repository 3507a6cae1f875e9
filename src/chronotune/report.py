"""What people see on a terminal: tables, and the progress of a running sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from chronotune.config.recipe import Recipe
    from chronotune.data.prepare import Dataset
    from chronotune.study import Reading, TrialRecord

COLOURS = {"zero-shot": "cyan", "complete": "green", "pruned": "yellow", "failed": "red", "running": "bold"}


def leaderboard_table(reading: Reading, rows: int | None = None) -> Table:
    """The leaderboard: zero-shot, then the best `rows` trials (all by default)."""
    from chronotune.results import leaderboard

    objective, budget = reading.attributes["recipe"]["objective"], reading.attributes["recipe"]["budget"]["windows"]
    table = Table(title=f"{reading.name}: validation {objective}, lower is better; budget {budget} windows a trial")
    for heading in ("trial", "state", objective, "gain", "windows", "steps", "seconds"):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for heading in ("mode", "lr", "batch", "context", "covariates"):
        table.add_column(heading, no_wrap=True)
    for row in leaderboard(reading).head((rows or len(reading.trials)) + 1).iter_rows(named=True):
        table.add_row(*_cells(row), style=COLOURS.get(row["state"]))
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    rank = f" r={row['lora_rank']}" if row["lora_rank"] else ""
    batch = f"{row['windows']}x{row['accumulation']}" if row["windows"] else ""
    return [
        "-" if row["trial"] is None else str(row["trial"]),
        row["state"],
        _number(row["score"]),
        "" if row["gain"] is None else f"{row['gain']:+.1%}",
        _whole(row["windows_seen"]),
        _whole(row["steps"]),
        "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        f"{row['mode'] or ''}{rank}",
        "" if row["learning_rate"] is None else f"{row['learning_rate']:.1e}",
        batch,
        _whole(row["context_length"]),
        row["covariates"] or "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def scores_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Contenders by metric."""
    headings = ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80")
    table = Table(title=title)
    table.add_column("model", no_wrap=True)
    for heading in ("context", "covariates", *headings):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [_number(row[metric]) for metric in headings]
        table.add_row(row["model"], str(row["context_length"]), row["covariates"], *cells)
    return table


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """The final evaluation of a sweep."""
    opened = evaluation["test_openings"]
    title = (
        f"test segment: {evaluation['windows']} windows of {evaluation['horizon']} steps from "
        f"{evaluation['first_origin']} to {evaluation['last_origin']}"
    )
    if opened is not None:
        title += f"; opened {opened} time{'' if opened == 1 else 's'}"
    return scores_table(evaluation["rows"], title)


def listing_table(listing: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """What `ls` shows."""
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "about", "path"):
        table.add_column(heading, no_wrap=heading != "about")
    for kind, entries in listing.items():
        for entry in entries:
            table.add_row(kind, entry["name"], entry["about"], display_path(Path(entry["path"])))
    return table


def facts_table(facts: Mapping[str, Any]) -> Table:
    """What `check` shows."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        text = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), text)
    return table


def watcher(console: Console) -> _Live | _Lines:
    """Progress for this console: a live table on a terminal, plain lines in a pipe."""
    return _Live(console) if console.is_terminal else _Lines(console)


class _Lines:
    """One line for every result and every end of a trial."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[int, tuple[str, int]] = {}
        self._zero_shot_shown = False

    def began(self, directory: Path, recipe: Recipe, dataset: Dataset) -> None:
        """Say what is about to happen."""
        self._print(summary(directory, recipe, dataset))

    def update(self, reading: Reading) -> None:
        """Print what is new."""
        self._zero_shot(reading)
        for trial in reading.trials:
            now = (trial.state, trial.windows_seen)
            if trial.windows_seen + (trial.state == "failed") and self._seen.get(trial.number) != now:
                self._print(_line(trial, reading))
            self._seen[trial.number] = now

    def ended(self, directory: Path, reading: Reading) -> None:
        """Print the tables."""
        conclude(self._console, directory, reading)

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


def _line(trial: TrialRecord, reading: Reading) -> str:
    recipe = reading.attributes["recipe"]
    last = trial.results[-1] if trial.results else None
    state = {"pruned": "stopped early", "failed": f"failed: {trial.reason}"}.get(trial.state, trial.state)
    done = sum(other.state != "running" for other in reading.trials)
    if last is None:
        return f"trial {trial.number}: {state}"
    return (
        f"trial {trial.number}: {last.windows_seen}/{recipe['budget']['windows']} windows, "
        f"{last.attributes.get('steps')} steps, {last.attributes.get('seconds', 0):.0f} s, "
        f"{recipe['objective']} {last.objective:.4f}, {state} [{done}/{reading.attributes['trials']} trials done]"
    )


class _Live(_Lines):
    """A leaderboard that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def began(self, directory: Path, recipe: Recipe, dataset: Dataset) -> None:
        """Say what is about to happen, then start the table."""
        super().began(directory, recipe, dataset)
        self._live.start()

    def update(self, reading: Reading) -> None:
        """Redraw."""
        self._live.update(leaderboard_table(reading, rows=max(5, self._console.height - 8)), refresh=True)

    def ended(self, directory: Path, reading: Reading) -> None:
        """Replace the live table by the final ones."""
        self._live.stop()
        super().ended(directory, reading)


def summary(directory: Path, recipe: Recipe, dataset: Dataset) -> str:
    """What a sweep is about to do, in windows and in optimizer steps."""
    from chronotune.config.space import extremes

    space, split = recipe.search_space, dataset.split
    batches = [w * a for w in extremes(space.windows) for a in extremes(space.accumulation)]
    steps = sorted(-(-recipe.budget.windows // batch) for batch in batches)
    return (
        f"{recipe.name}: {recipe.budget.trials} trials of {recipe.model.name} on {recipe.data.source}, up to "
        f"{recipe.budget.windows} windows each ({steps[0]}-{steps[-1]} optimizer steps), "
        f"scored after {', '.join(map(str, recipe.rungs))} windows\n"
        f"{len(split.validation_origins)} validation origins, {len(split.test_origins)} test origins of "
        f"{recipe.horizon} steps; sweep folder: {display_path(directory)}"
    )


def conclude(console: Console, directory: Path, reading: Reading, rows: int = 10) -> None:
    """The leaderboard, the evaluation when there is one, and what to do next."""
    if reading.attributes.get("zero_shot") or reading.trials:
        console.print(leaderboard_table(reading, rows))
    pruned = sum(trial.state == "pruned" for trial in reading.trials)
    failed = sum(trial.state == "failed" for trial in reading.trials)
    console.print(f"{len(reading.trials)} trials: {pruned} stopped early, {failed} failed", highlight=False)
    path = display_path(directory)
    if evaluation := reading.attributes.get("evaluation"):
        console.print(evaluation_table(evaluation))
        console.print(f"next: chronotune export {path} --to models/NAME", highlight=False, soft_wrap=True)
    else:
        console.print(f"not finished; go on with: chronotune resume {path}", highlight=False, soft_wrap=True)


def display_path(path: Path) -> str:
    """A path as short as it can be typed here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
