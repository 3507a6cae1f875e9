"""The command line: parse, call, print. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from chronotune.catalog import Kind
from chronotune.errors import ChronotuneError

app = typer.Typer(
    name="chronotune",
    help="Hyperparameter tuning for fine-tuning the Chronos-2 forecasting model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe's name (`chronotune ls`) or file.", metavar="RECIPE")]
SweepArgument = Annotated[Path, typer.Argument(help="A sweep's folder.", metavar="DIR")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override any key of the recipe, e.g. `budget.trials=40`. Repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


def main() -> NoReturn:
    """Run the command line. Exit 0: done; 1: the run failed; 2: your input; 130: interrupted, `resume` goes on."""
    try:
        app()
    except ChronotuneError as error:
        typer.echo(f"chronotune: {_told(error)}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


@app.command()
def ls(as_json: JsonOption = False) -> None:
    """List recipes, search spaces, models, clusters and past sweeps.

    Example: `chronotune ls`
    """
    from chronotune import catalog
    from chronotune.results import sweeps

    listing: dict[str, list[dict[str, Any]]] = {
        kind: [{"name": e.name, "path": str(e.path), "about": e.summary} for e in catalog.entries(kind)]
        for kind in catalog.FOLDERS
    }
    listing["sweep"] = sweeps(Path("sweeps"))
    if as_json:
        _print_json(listing)
        return
    from chronotune.report import listing_table

    _console().print(listing_table(listing))


@app.command()
def cp(
    name: Annotated[str, typer.Argument(help="A shipped recipe, space, model or cluster (`chronotune ls`).")],
    to: Annotated[Path | None, typer.Argument(help="Where to; by default the same folder and name, here.")] = None,
) -> None:
    """Copy a shipped file here, to make it your own.

    Example: `chronotune cp steel tuning/plant7.yaml`
    """
    from chronotune import catalog

    typer.echo(catalog.copy(name, to))


@app.command()
def check(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Check a recipe and its data, and show how time would be split. Nothing is written.

    Example: `chronotune check tuning/steel.yaml --set data.path=steel.csv`
    """
    from chronotune.config.load import load_recipe
    from chronotune.data.describe import describe
    from chronotune.data.prepare import load

    loaded = load_recipe(recipe, overrides or ())
    facts = describe(load(loaded), loaded)
    if as_json:
        _print_json(facts)
        return
    from chronotune.report import facts_table

    _console().print(facts_table(facts))


@app.command()
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
    from chronotune.progress import watcher
    from chronotune.sweep import run_sweep

    _interruptible(lambda: run_sweep(loaded, directory, watcher(_console())))


@app.command()
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
    from chronotune.progress import watcher
    from chronotune.sweep import resume_sweep

    watching = watcher(_console())
    _interruptible(lambda: resume_sweep(directory, trials, watching, minutes))
    if not watching.saw_any:
        typer.echo("the sweep was finished already; --trials +N adds more")
        show(directory)


@app.command()
def show(directory: SweepArgument, as_json: JsonOption = False) -> None:
    """Show the leaderboard, the finalists and the evaluation of a running, dead or finished sweep.

    Example: `chronotune show sweeps/quickstart-20261124-101500`
    """
    from chronotune.results import as_dict
    from chronotune.study import read

    reading = read(directory)
    if as_json:
        _print_json(as_dict(reading))
        return
    from chronotune.report import conclude

    conclude(_console(), directory, reading, rows=len(reading.trials))


@app.command()
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


@app.command()
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


@app.command()
def evaluate(
    target: Annotated[str, typer.Argument(help="A sweep's folder, or a model's name or preset file.")],
    recipe: Annotated[
        str | None, typer.Option(help="For a model: the recipe whose test windows to use; by default its own.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a sweep's winner again, or any model, on the test windows; openings of a sweep's are counted.

    Example: `chronotune evaluate tiny --recipe tuning/quickstart.yaml`
    """
    from chronotune.evaluation import evaluation_of
    from chronotune.report import evaluation_table

    evaluation = evaluation_of(target, recipe, overrides or ())
    if as_json:
        _print_json(evaluation)
    else:
        console = _console()
        console.print(evaluation_table(evaluation, console.width))


@app.command()
def export(
    directory: SweepArgument,
    to: Annotated[Path, typer.Option(help="Where the model shall stand, e.g. models/steel; never overwritten.")],
) -> None:
    """Copy a sweep's winner: checkpoint, `preset.yaml` and `recipe.yaml`.

    Example: `chronotune export sweeps/quickstart-20261124-101500 --to models/solar`
    """
    from chronotune.export import export_winner

    exported = export_winner(directory, to)
    if exported != to:
        typer.echo(f"chronotune: {to} exists and is not overwritten; exported beside it", err=True)
    typer.echo(exported)


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    to: Annotated[Path | None, typer.Option(help="Where the model shall stand; by default models/RECIPE.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train one configuration, such as an exported one, exactly as its trial was trained.

    Example: `chronotune train models/solar/recipe.yaml --to models/solar-again`
    """
    from chronotune.config.load import load_recipe
    from chronotune.train import train_recipe

    loaded = load_recipe(recipe, overrides or ())
    trained = train_recipe(loaded, to or Path("models") / loaded.name)
    if as_json:
        _print_json({"folder": str(trained.folder), "windows_seen": trained.windows_seen, "score": trained.score})
    else:
        typer.echo(
            f"{trained.folder}: validation {loaded.objective} {trained.score!r} after {trained.windows_seen} windows"
        )


@app.command()
def rm(
    directory: SweepArgument,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Only the trials' checkpoints.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a sweep, or only its checkpoints. Exported models and MLflow runs stay.

    Example: `chronotune rm sweeps/quickstart-20261124-101500 --checkpoints`
    """
    from chronotune.results import refuse_removal, remove, size_of

    refuse_removal(directory)
    what = directory / "checkpoints" if checkpoints else directory
    if not yes:
        typer.confirm(f"Remove {what} ({size_of(what) / 2**20:.0f} MiB)?", abort=True)
    remove(directory, only_checkpoints=checkpoints)


@app.command()
def schema(
    kind: Annotated[Kind, typer.Argument(help="recipe, space, model or cluster.")],
) -> None:
    """Print the JSON Schema of a kind of file, for editors to complete and check it.

    Example: `chronotune schema recipe > recipe.schema.json`
    """
    from chronotune.config.load import schema as schema_of

    _print_json(schema_of(kind))


def _told(error: ChronotuneError) -> str:
    """One fault on one line, several below each other."""
    faults = getattr(error, "faults", ())
    lines = [f"  {fault}" for fault in faults]
    return str(error) if len(lines) < 2 else "\n".join([f"{len(lines)} things to mend", *lines])


def _interruptible(sweep: Callable[[], object]) -> None:
    """Run a sweep; an interrupted one has its own exit code."""
    try:
        sweep()
    except KeyboardInterrupt:
        typer.echo("interrupted; everything finished is recorded", err=True)
        raise typer.Exit(130) from None


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # a pipe has no width: wide enough that no table is cut
    return console if console.is_terminal else Console(width=160)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
