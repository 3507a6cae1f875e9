"""What several commands share: arguments, options, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeArgument = Annotated[str, typer.Argument(help="A recipe's name (`chronotune ls`) or file.", metavar="RECIPE")]
SweepArgument = Annotated[Path, typer.Argument(help="A sweep's folder.", metavar="DIR")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override any key of the recipe, e.g. `budget.trials=40`. Repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


def console() -> Any:
    """The terminal, or a pipe as wide as any table."""
    from rich.console import Console

    terminal = Console()
    # a pipe has no width: wide enough that no table is cut
    return terminal if terminal.is_terminal else Console(width=160)


def print_json(value: object) -> None:
    """JSON for a script to read."""
    typer.echo(json.dumps(value, indent=2))
