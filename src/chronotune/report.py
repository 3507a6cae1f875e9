"""What people see on a terminal: tables of sweeps, evaluations and listings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table

from chronotune.gate import alternative, decision_of, is_shipped
from chronotune.openings import Openings

if TYPE_CHECKING:
    from chronotune.config.recipe import Recipe
    from chronotune.data.prepare import Dataset
    from chronotune.study import Reading

COLOURS = {"zero-shot": "cyan", "complete": "green", "pruned": "yellow", "failed": "red", "running": "bold"}
METRICS = ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80")
TO_THE_LEFT = {"state", "mode", "covariates", "model", "name", "verdict"}
WIDE = 116
"""Columns of a terminal from which on all columns of the leaderboard are shown."""
NEEDED_LEAST = ("r2", "mape", "covariates", "context", "coverage80", "rmse", "wql", "mase", "mae", "95% interval")
"""Columns of an evaluation that a terminal lacks the room for, in the order in which they go."""


def leaderboard_table(reading: Reading, rows: int | None = None, width: int = WIDE, driven: bool = True) -> Group:
    """The leaderboard of a sweep, `driven` or not: zero-shot, then the best `rows` trials (all by default)."""
    from chronotune.results import leaderboard

    objective, budget = reading.attributes["recipe"]["objective"], reading.attributes["recipe"]["budget"]["windows"]
    whole = leaderboard(reading, driven)
    board = whole.head((rows or len(reading.trials)) + 1)
    lines = [_leaderboard_cells(row, objective) for row in board.iter_rows(named=True)]
    title = f"{reading.name}: validation {objective}, lower is better; budget {budget} windows a trial"
    if left_out := len(whole) - len(board):
        title += f"; {left_out} more in `chronotune show`"
    hidden = {"best at", "steps", "seconds", "batch"} if width < WIDE else set()
    return Group(title, _table(lines, hidden, colour_by="state"))


def _leaderboard_cells(row: Mapping[str, Any], objective: str) -> dict[str, str]:
    rank = f" r={row['lora_rank']}" if row["lora_rank"] else ""
    return {
        "trial": _text(row["trial"]) or "-",
        "state": row["state"],
        objective: _text(row["score"], ".4f"),
        "gain": _text(row["gain"], "+.1%"),
        "best at": _text(row["windows_seen"]),
        "steps": _text(row["steps"]),
        "seconds": _text(row["seconds"], ".0f"),
        "mode": f"{row['mode'] or ''}{rank}",
        "lr": _text(row["learning_rate"], ".1e"),
        "batch": f"{row['windows']}x{row['accumulation']}" if row["windows"] else "",
        "context": _text(row["context_length"]),
        "covariates": row["covariates"] or "",
    }


def zero_shot_table(reading: Reading) -> Group | None:
    """What the untouched model scores with each context and covariate set; None when that is one, or unknown."""
    from chronotune.results import zero_shot

    rows = zero_shot(reading)
    if sum(len(row) - 1 for row in rows) < 2:
        return None
    lines = [{name: _text(value, "" if name == "context" else ".4f") for name, value in row.items()} for row in rows]
    objective = reading.attributes["recipe"]["objective"]
    return Group(f"zero-shot: validation {objective} of the untouched model by what it is fed", _table(lines, set()))


def finalists_table(reading: Reading, driven: bool = True) -> Group | None:
    """The finalists from best to worst, a column for each seed; None when there are none."""
    from chronotune.results import finalists

    rows = finalists(reading, driven)
    if not rows:
        return None
    objective, seeds = reading.attributes["recipe"]["objective"], reading.attributes["finalists"]["seeds"]
    lines = [_finalist_cells(row, objective, seeds) for row in rows]
    title = f"finalists: validation {objective} when trained again with other seeds, by their mean"
    if len(rows) < (wanted := reading.attributes["recipe"]["finalists"]["top"]):
        title += f"\nonly {len(rows)} of the {wanted} wanted: no other point reached the full budget"
    return Group(title, _table(lines, set(), colour_by="state"))


def _finalist_cells(row: Mapping[str, Any], objective: str, seeds: Sequence[int]) -> dict[str, str]:
    scores = {repeat["seed"]: _text(repeat["score"], ".4f") or repeat["state"] for repeat in row["repeats"]}
    failed = {repeat["seed"] for repeat in row["repeats"] if repeat["state"] == "failed"}
    return {
        "trial": str(row["trial"]),
        "state": row["state"],
        f"mean {objective}": _text(row["mean"], ".4f"),
        "spread": _text(row["spread"], ".4f"),
        "gain": _text(row["gain"], "+.1%"),
        "in the search": _text(row["searched"], ".4f"),
        **{f"seed {seed}": "failed" if seed in failed else scores.get(seed, "") for seed in seeds},
    }


def _choice(reading: Reading) -> str:
    """Which trial won by its mean, and what of it is exported; empty when no finalists decided it."""
    winner = reading.attributes.get("winner") or {}
    if "mean" not in winner:
        return ""
    count = f"{winner['seeds']} seed{'' if winner['seeds'] == 1 else 's'}"
    spread = "" if winner["spread"] is None else f", spread {winner['spread']:.4f}"
    role = "exported" if winner.get("challenger", "best") == "best" else "its weights"
    return (
        f"trial {winner['number']} wins with a mean {reading.attributes['recipe']['objective']} of "
        f"{winner['mean']:.4f} over {count}{spread}; {role}: seed {winner['seed']}, its median"
    )


def _challenger(reading: Reading) -> str:
    """What challenges zero-shot in the winner's place, and why; empty when it is the winner itself."""
    from chronotune.blending import composition

    name = (reading.attributes.get("winner") or {}).get("challenger", "best")
    if name == "best":
        return ""
    choice, objective = reading.attributes["choice"], reading.attributes["recipe"]["objective"]
    made_of = composition(choice["blends"][name]) if name in choice["blends"] else "; ".join(choice["averaged"])
    better, alone = choice["scores"][name], choice["scores"]["best"]
    return (
        f"in its place {name} challenges zero-shot ({made_of}), {1 - better / alone:.2%} better than the winner on "
        f"validation: {objective} {better:.4f} instead of {alone:.4f}"
    )


def _refit(reading: Reading) -> str:
    """That export writes other weights than were judged; empty without a refit."""
    winner = reading.attributes.get("winner") or {}
    if "refit" not in winner:
        return ""
    return (
        f"refit: trial {winner['number']} was trained once more on training and validation, {winner['windows_seen']} "
        f"windows as before; export writes these weights, {winner['refit']}"
    )


def evaluation_table(evaluation: Mapping[str, Any], width: int = WIDE) -> Group:
    """Contenders by metric on the test windows, and the verdict when a sweep was evaluated."""
    compared = any(row.get("gain") is not None for row in evaluation["rows"])  # a model by itself has no such pair
    lines = [
        {
            "model": row["model"],
            "context": _text(row["context_length"]),
            "covariates": row["covariates"],
            **{metric: _text(row[metric], ".4g") for metric in METRICS},
            **(_gain_cells(row) if compared else {}),
        }
        for row in evaluation["rows"]
    ]
    title = (
        f"test segment: {evaluation['windows']} windows of {evaluation['horizon']} steps from "
        f"{evaluation['first_origin']} to {evaluation['last_origin']}"
    )
    openings = Openings.of(evaluation)
    title += f"; {openings}" if openings.most else ""
    verdict = evaluation.get("verdict")  # sweeps of before have none
    objective = (verdict or {}).get("objective")
    dispensable = [name for name in NEEDED_LEAST if name in lines[0] and name != objective]
    table = _table(lines, _too_many(lines, width, dispensable))
    below = [*_compositions(evaluation), *([_meaning(evaluation)] if compared else [])]
    return Group(title, table, *below, *([f"verdict: {verdict['sentence']}"] if verdict else []))


def _too_many(lines: Sequence[Mapping[str, str]], width: int, dispensable: Sequence[str]) -> set[str]:
    """The first of some columns, as many as must be left out for no cell of the others to be cut."""
    wide = {name: max(len(name), *(len(line[name]) for line in lines)) + 2 for name in lines[0]}
    counts = range(len(dispensable) + 1)
    fitting = (n for n in counts if sum(wide.values()) - sum(wide[name] for name in dispensable[:n]) <= width)
    return set(dispensable[: next(fitting, len(dispensable))])


def _gain_cells(row: Mapping[str, Any]) -> dict[str, str]:
    low, high = row.get("gain_low"), row.get("gain_high")
    interval = "" if low is None or high is None else f"{low:+.1%} to {high:+.1%}"
    return {"gain": _text(row.get("gain"), "+.1%"), "95% interval": interval}


def _compositions(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """What the blends are made of."""
    from chronotune.blending import composition

    for row in evaluation["rows"]:
        if row.get("members"):
            yield f"{row['model']}: {composition(row['members'])}; weights from validation"


def _meaning(evaluation: Mapping[str, Any]) -> str:
    """What the gains are over, and which of them is no verdict."""
    challenger = (evaluation.get("verdict") or {}).get("challenger")
    only = f"only that of {challenger}, chosen on validation, is a verdict" if challenger else "none is a verdict"
    return f"gains are over the first row of zero-shot; {only}"


def comparison_tables(comparison: Mapping[str, Any]) -> Group:
    """What `compare` shows: a table for each ruler, then what does not compare and why."""
    parts: list[Any] = []
    for group in comparison["groups"]:
        parts += [f"measured on {group['ruler'].rpartition(', ')[0]}", _table(map(_compared, group["rows"]), set())]
        counted = [(row["name"], found) for row in group["rows"] if (found := Openings.of(row)).most]
        parts += [f"test segment: {'; '.join(f'{name} {found}' for name, found in counted)}"] if counted else []
    return Group(*parts, *(f"{one['name']}: {one['why']}" for one in comparison["apart"]))


def _compared(row: Mapping[str, Any]) -> dict[str, str]:
    interval = "" if row["low"] is None else f"{row['low']:+.1%} to {row['high']:+.1%}"
    return {
        "name": row["name"],
        "trials": _text(row["trials"]),
        row["objective"]: _text(row["score"], ".4f") + (" (fitted)" if row["fitted"] else ""),
        "zero-shot": _text(row["zero_shot"], ".4f"),
        "gain": _text(row["gain"], "+.1%"),
        f"test {row['objective']}": _text(row["test"], ".4f"),
        "test gain": _text(row["test_gain"], "+.1%"),
        "95% interval": interval,
        "verdict": _text(row["verdict"]),
    }


def _text(value: Any, form: str = "") -> str:
    return "" if value is None else format(value, form)


def _table(lines: Iterable[Mapping[str, str]], hidden: set[str], colour_by: str | None = None) -> Table:
    """Rows of equal keys under their keys."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, line in enumerate(lines):
        shown = {heading: cell for heading, cell in line.items() if heading not in hidden}
        if number == 0:
            for heading in shown:
                table.add_column(heading, justify="left" if heading in TO_THE_LEFT else "right", no_wrap=True)
        table.add_row(*shown.values(), style=COLOURS.get(line[colour_by]) if colour_by else None)
    return table


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


def summary(directory: Path, recipe: Recipe, dataset: Dataset, trials: int) -> str:
    """What a sweep that wants so many trials is about to do, in windows and in optimizer steps."""
    from chronotune.config.space import extremes

    space, split = recipe.search_space, dataset.split
    batches = [w * a for w in extremes(space.windows) for a in extremes(space.accumulation)]
    steps = sorted(-(-recipe.budget.windows // batch) for batch in batches)
    return (
        f"{recipe.name}: {_trials(trials)} of {recipe.model.name} on {recipe.data.source}, up to "
        f"{recipe.budget.windows} windows each ({'-'.join(map(str, sorted({steps[0], steps[-1]})))} optimizer steps), "
        f"scored after {', '.join(map(str, recipe.rungs))} windows{_repeated(recipe)}\n"
        f"{len(split.validation_origins)} validation origins, {len(split.test_origins)} test origins of "
        f"{recipe.horizon} steps; sweep folder: {display_path(directory)}"
    )


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _repeated(recipe: Recipe) -> str:
    top, seeds = recipe.finalists.top, recipe.finalists.seeds
    told = f"; then the best {top} again with {seeds} other seed{'' if seeds == 1 else 's'}" if top else ""
    return f"{told}; at last the winner once more, on validation too" if recipe.finalists.refit else told


def conclude(
    console: Console,
    directory: Path,
    reading: Reading,
    rows: int = 10,
    driver: Mapping[str, Any] | None = None,
) -> None:
    """The leaderboard, finalists and evaluation when there are any, and what to do next.

    Args:
        console: To print on.
        directory: The sweep's folder.
        reading: Of its study.
        rows: Trials of the leaderboard.
        driver: Who drives the sweep, as `lease.other_driver` told before the study was read.
    """
    from chronotune.noise import sentence
    from chronotune.results import noise

    if reading.attributes.get("zero_shot") or reading.trials:
        console.print(leaderboard_table(reading, rows, console.width, driver is not None))
    if (settings := zero_shot_table(reading)) is not None:
        console.print(settings)
    console.print(_counts(reading, driver), highlight=False)
    if told := sentence(noise(reading)):
        console.print(told, highlight=False, soft_wrap=True)
    if stopped := _stopped(directory, reading, driver):
        console.print(stopped, highlight=False, soft_wrap=True)
    if (table := finalists_table(reading, driver is not None)) is not None:
        console.print(table)
    if choice := _choice(reading):
        console.print(choice, highlight=False)
    if challenger := _challenger(reading):
        console.print(challenger, highlight=False)
    if evaluation := reading.evaluation:
        console.print(evaluation_table(evaluation, console.width))
    if refit := _refit(reading):
        console.print(refit, highlight=False, soft_wrap=True)
    console.print(_next_step(directory, reading, driver), highlight=False, soft_wrap=True)


def _counts(reading: Reading, driver: Mapping[str, Any] | None) -> str:
    pruned, failed, unended = (
        sum(trial.state == state for trial in reading.trials) for state in ("pruned", "failed", "running")
    )
    left = f", {unended} {'running' if driver else 'interrupted'}" if unended else ""
    return f"{_trials(len(reading.trials))}: {pruned} stopped early, {failed} failed{left}"


def _stopped(directory: Path, reading: Reading, driver: Mapping[str, Any] | None) -> str:
    """Why fewer trials came than were wanted, and what brings more; empty when none are missing."""
    if not (stopped := reading.attributes.get("stopped")):
        return ""
    option = "--minutes" if "budget.minutes" in stopped else "--trials"
    more = "" if driver else f"; more with: chronotune resume {display_path(directory)} {option} +N"
    return f"no more trials, although {reading.attributes['trials']} were wanted: {stopped}{more}"


def _next_step(directory: Path, reading: Reading, driver: Mapping[str, Any] | None) -> str:
    path = display_path(directory)
    if reading.attributes.get("ended"):
        return f"next: {_after_the_verdict(path, reading)}"
    if driver is not None:
        return f"still running, driven by process {driver['pid']} on {driver['host']}"
    return f"not finished; go on with: chronotune resume {path}"


def _after_the_verdict(path: str, reading: Reading) -> str:
    export = f"chronotune export {path} --to models/NAME"
    if is_shipped(reading.evaluation):
        return export
    if reading.evaluation is None:
        return f"chronotune evaluate {path}"
    return f"keep {alternative(reading.attributes['recipe']['model']['name'], reading.zero_shot)}; or {export} --force"


def registration(reading: Reading, version: str | None, uri: str | None) -> str:
    """What became of the winner in the registry that the recipe names; empty when it names none, or MLflow is away."""
    name = reading.attributes["recipe"]["tracking"].get("registry")
    if name is None or reading.evaluation is None:
        return ""
    if not is_shipped(reading.evaluation):
        return f"not registered as {name}: the verdict is {decision_of(reading.evaluation) or 'missing'}"
    if uri is None:
        return f"not registered as {name}: the mirror is off; set tracking.enabled: true"
    return f"registered: version {version} of {name} in MLflow at {uri}" if version else ""


def display_path(path: Path) -> str:
    """A path as short as it can be typed here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
