"""Commands about sweeps: run, go on, look, keep, remove."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from chronotune.collector import importing
from chronotune.commands import clusters
from chronotune.commands.shared import JsonOption, RecipeArgument, SetOption, SweepArgument, console, print_json


def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    cluster: Annotated[str | None, typer.Option(help="A cluster profile's name or file.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="A new folder; by default sweeps/RECIPE-TIME.")
    ] = None,
) -> None:
    """Run a sweep: search, train the best again with other seeds, compare the winner with zero-shot.

    Example: `chronotune run tuning/quickstart.yaml --set budget.trials=6`
    """
    from chronotune.config.load import load_recipe

    loaded = load_recipe(recipe, [*([f"cluster={cluster}"] if cluster else []), *(overrides or ())])
    if loaded.cluster.kind == "existing":
        clusters.begin(loaded, directory)
        return
    with importing():
        from chronotune.progress import watcher
        from chronotune.sweep import run_sweep

    _interruptible(lambda: run_sweep(loaded, directory, watcher(console())))


def resume(
    directory: SweepArgument,
    trials: Annotated[
        int, typer.Option(min=0, metavar="+N", help="Trials to add to those that were wanted; 20 is the same as +20.")
    ] = 0,
    minutes: Annotated[float, typer.Option(min=0, metavar="+N", help="Wall time to add to `budget.minutes`.")] = 0,
) -> None:
    """Go on with a sweep after any end, or extend a finished one.

    Example: `chronotune resume sweeps/quickstart-20261124-101500 --trials +10`
    """
    if clusters.go_on(directory, trials, minutes):
        return
    with importing():
        from chronotune.progress import watcher
        from chronotune.results import registered
        from chronotune.sweep import resume_sweep

    if (trials or minutes) and (warning := registered(directory)):
        typer.echo(f"chronotune: {warning}", err=True)
    watching = watcher(console())
    _interruptible(lambda: resume_sweep(directory, trials, watching, minutes))
    if not watching.saw_any:
        typer.echo("the sweep was finished already; --trials +N adds more")
        show(directory)


def show(directory: SweepArgument, as_json: JsonOption = False) -> None:
    """Show the leaderboard, the finalists and the evaluation of a running, dead or finished sweep.

    Example: `chronotune show sweeps/quickstart-20261124-101500`
    """
    from chronotune.lease import other_driver
    from chronotune.results import as_dict
    from chronotune.study import read

    driver = other_driver(directory)  # before the study: a sweep that ends in between is not one that was cut off
    reading = read(directory)
    if as_json:
        print_json(as_dict(reading, driver is not None))
        return
    from chronotune.report import conclude

    conclude(console(), directory, reading, len(reading.trials), driver)


def report(
    directory: SweepArgument,
    to: Annotated[
        Path | None, typer.Option(help="The file to write, or a folder for report.html; by default that of the sweep.")
    ] = None,
) -> None:
    """Write the report of a running, dead or finished sweep: one HTML file that opens offline.

    Example: `chronotune report sweeps/quickstart-20261124-101500 --to solar.html`
    """
    from chronotune.page import write_report

    typer.echo(write_report(directory, to))


def logs(
    directory: SweepArgument,
    trial: Annotated[int, typer.Argument(min=0, help="The trial's number (`chronotune show`).")],
    seed: Annotated[int | None, typer.Option(help="Of a finalist: of which of its trainings.")] = None,
) -> None:
    """Show a trial's log, with its traceback if it failed, wherever it ran.

    Example: `chronotune logs sweeps/quickstart-20261124-101500 3`
    """
    from chronotune.results import log_of

    typer.echo(log_of(directory, trial, seed), nl=False)


def mirror(
    directory: SweepArgument,
    to: Annotated[str | None, typer.Option(help="MLflow's address; by default the one of the recipe.")] = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment; by default the one of the recipe.")] = None,
) -> None:
    """Write a running, dead or finished sweep to an MLflow server or database; what is there is not written twice.

    Example: `chronotune mirror sweeps/quickstart-20261124-101500 --to http://localhost:5000`
    """
    from chronotune.tracking import mirror_again

    report = mirror_again(directory, to, experiment)
    typer.echo(f"{report.points} new metric values written to {report.uri}")


def rm(
    directory: SweepArgument,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Only the trials' checkpoints.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a sweep, or only its checkpoints. Exported models and MLflow runs stay.

    Example: `chronotune rm sweeps/quickstart-20261124-101500 --checkpoints`
    """
    from chronotune.results import elsewhere, refuse_removal, registered, remove, size_of
    from chronotune.storage import left_behind

    refuse_removal(directory)
    stays = None if checkpoints else left_behind(directory)
    what = directory / "checkpoints" if checkpoints else directory
    if not checkpoints and (warning := registered(directory)):
        typer.echo(f"chronotune: {warning}", err=True)
    if not yes:
        also = f" and {place}" if (place := elsewhere(directory)) else ""
        typer.confirm(f"Remove {what} ({size_of(what) / 2**20:.0f} MiB){also}?", abort=True)
    remove(directory, only_checkpoints=checkpoints)
    if stays:
        typer.echo(stays)


def _interruptible(sweep: Callable[[], object]) -> None:
    """Run a sweep; an interrupted one has its own exit code."""
    try:
        sweep()
    except KeyboardInterrupt:
        typer.echo("interrupted; everything finished is recorded", err=True)
        raise typer.Exit(130) from None
