"""Commands about models: what one is worth, and what is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chronotune.commands.shared import JsonOption, RecipeArgument, SetOption, SweepArgument, console, print_json


def evaluate(
    target: Annotated[str, typer.Argument(help="A sweep's folder, or a model's name or preset file.")],
    recipe: Annotated[
        str | None, typer.Argument(help="For a model: the recipe whose test windows to use; by default its own.")
    ] = None,
    overrides: SetOption = None,
    max_windows: Annotated[
        int | None, typer.Option(min=1, help="For a model: at most so many test windows, at even distances.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="For a model: judge it beside this one, or beside the recipe's: `zero-shot`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score any model on a recipe's test windows beside baselines, or a sweep's winner again; openings are counted.

    Example: `chronotune evaluate tiny tuning/quickstart.yaml --max-windows 20`
    """
    from chronotune.report import evaluation_table
    from chronotune.standalone import evaluation_of

    evaluation = evaluation_of(target, recipe, overrides or (), max_windows=max_windows, against=against)
    if as_json:
        print_json(evaluation)
    else:
        terminal = console()
        terminal.print(evaluation_table(evaluation, terminal.width))


def compare(
    targets: Annotated[
        list[str], typer.Argument(help="Sweeps' folders, and names or folders of exported models.", metavar="DIR...")
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare sweeps and exported models, where the same ruler measured them; the others are told with the reason.

    Example: `chronotune compare sweeps/steel-20261124-101500 sweeps/steel-20261125-101500 models/steel`
    """
    from chronotune.compare import compare as comparison_of
    from chronotune.report import comparison_tables

    comparison = comparison_of(targets)
    if as_json:
        print_json(comparison)
    else:
        console().print(comparison_tables(comparison))


def forecast(
    model: Annotated[
        str, typer.Argument(help="A model's name, preset file or folder, or a sweep's folder: its winner.")
    ],
    data: Annotated[Path, typer.Argument(help="CSV or Parquet; rows behind the last target hold the known future.")],
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Steps to forecast; by default what the model was tuned for.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .parquet file, replaced if it exists; by default CSV is printed.")
    ] = None,
    series: Annotated[list[str] | None, typer.Option(help="Only the series of this id. Repeatable.")] = None,
    fill_gaps: Annotated[bool, typer.Option("--fill-gaps", help="Take missing rows as missing values.")] = False,
    time: Annotated[str | None, typer.Option(help="Of an untuned model: the column of times (interval start).")] = None,
    target: Annotated[str | None, typer.Option(help="Of an untuned model: the column to forecast.")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Of an untuned model: the column that tells series apart.")
    ] = None,
    known_future: Annotated[
        list[str] | None, typer.Option(help="Of an untuned model: a covariate known in advance. Repeatable.")
    ] = None,
    past_only: Annotated[
        list[str] | None, typer.Option(help="Of an untuned model: a covariate known up to now. Repeatable.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Of an untuned model: steps of the past that it sees.")
    ] = None,
) -> None:
    """Forecast a file from the end of its target: quantiles by time, for every series.

    Example: `chronotune forecast models/solar latest.csv --horizon 24 --out forecast.parquet`
    """
    from chronotune import serving
    from chronotune.errors import InputError

    if out:
        serving.refuse_format(out)
    given = (id_, *(known_future or ()), *(past_only or ()))
    if bool(time) != bool(target) or (any(given) and not time):
        raise InputError("--time and --target go together, and columns of covariates and ids need both. Give both")
    columns = None
    if time and target:
        columns = serving.Columns(time, target, id_, tuple(past_only or ()), tuple(known_future or ()))
    frame = serving.forecast(
        model, data, horizon, columns=columns, context_length=context, series=series or (), fill_gaps=fill_gaps
    )
    if out:
        serving.write(frame, out)
        typer.echo(out)
    else:
        typer.echo(frame.write_csv(), nl=False)


def export(
    directory: SweepArgument,
    to: Annotated[Path, typer.Option(help="Where the model shall stand, e.g. models/steel; never overwritten.")],
    force: Annotated[bool, typer.Option("--force", help="Also when the verdict is not to ship it.")] = False,
    unrefitted: Annotated[
        bool, typer.Option("--unrefitted", help="With finalists.refit: the weights that the verdict is on.")
    ] = False,
) -> None:
    """Copy a sweep's winner, if its verdict is to ship it: checkpoint, `preset.yaml` and `recipe.yaml`.

    Example: `chronotune export sweeps/quickstart-20261124-101500 --to models/solar`
    """
    from chronotune.export import export_winner

    exported = export_winner(directory, to, force, unrefitted)
    if exported != to:
        typer.echo(f"chronotune: {to} exists and is not overwritten; exported beside it", err=True)
    typer.echo(exported)


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
    from chronotune.export import made_of_several
    from chronotune.gate import UNVERIFIED
    from chronotune.train import train_recipe

    loaded = load_recipe(recipe, overrides or ())
    if kind := made_of_several(Path(recipe)):
        typer.echo(f"chronotune: the model beside is {kind}; this trains only the first that it was made of", err=True)
    trained = train_recipe(loaded, to or Path("models") / loaded.name)
    if as_json:
        print_json({"folder": str(trained.folder), "windows_seen": trained.windows_seen, "score": trained.score})
    else:
        measured = UNVERIFIED if trained.score is None else f"validation {loaded.objective} {trained.score!r}"
        typer.echo(f"{trained.folder}: {measured} after {trained.windows_seen} windows")
