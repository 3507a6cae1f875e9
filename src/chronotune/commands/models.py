"""Commands about models: what one is worth, and what is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chronotune.commands.shared import JsonOption, RecipeArgument, SetOption, SweepArgument, console, print_json


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
        print_json(evaluation)
    else:
        terminal = console()
        terminal.print(evaluation_table(evaluation, terminal.width))


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
        print_json({"folder": str(trained.folder), "windows_seen": trained.windows_seen, "score": trained.score})
    else:
        typer.echo(
            f"{trained.folder}: validation {loaded.objective} {trained.score!r} after {trained.windows_seen} windows"
        )
