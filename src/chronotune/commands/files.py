"""Commands about files: what there is, a copy of it, whether it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chronotune.catalog import Kind
from chronotune.commands.shared import JsonOption, RecipeArgument, SetOption, console, print_json


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
        print_json(listing)
        return
    from chronotune.report import listing_table

    console().print(listing_table(listing))


def cp(
    name: Annotated[str, typer.Argument(help="A shipped recipe, space, model or cluster (`chronotune ls`).")],
    to: Annotated[Path | None, typer.Argument(help="Where to; by default the same folder and name, here.")] = None,
) -> None:
    """Copy a shipped file here, to make it your own.

    Example: `chronotune cp steel tuning/plant7.yaml`
    """
    from chronotune import catalog

    typer.echo(catalog.copy(name, to))


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
        print_json(facts)
        return
    from chronotune.report import facts_table

    console().print(facts_table(facts))


def schema(
    kind: Annotated[Kind, typer.Argument(help="recipe, space, model or cluster.")],
) -> None:
    """Print the JSON Schema of a kind of file, for editors to complete and check it.

    Example: `chronotune schema recipe > recipe.schema.json`
    """
    from chronotune.config.load import schema as schema_of

    print_json(schema_of(kind))
