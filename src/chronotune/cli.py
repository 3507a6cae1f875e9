"""The command line: its commands in the order of `--help`, and how it ends. What each does is in `commands`."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from chronotune import __version__
from chronotune.commands import clusters, files, models, sweeps
from chronotune.errors import ChronotuneError, InputError


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chronotune {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="chronotune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_OF_A_PATH = (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)
"""What the system says of a path that somebody named."""


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Hyperparameter tuning for fine-tuning the Chronos-2 forecasting model."""


for _command in (
    *(files.ls, files.cp, files.check),
    *(sweeps.run, sweeps.resume, sweeps.show, sweeps.report, sweeps.logs, sweeps.mirror),
    *(clusters.attach, clusters.status, clusters.stop),
    *(models.evaluate, models.compare, models.export, models.train, models.forecast),
    *(sweeps.rm, files.schema),
):
    app.command()(_command)


def main() -> NoReturn:
    """Run the command line. Exit 0: done; 1: the run failed; 2: your input; 130: interrupted, `resume` goes on."""
    try:
        app()
    except ChronotuneError as error:
        typer.echo(f"chronotune: {_told(error)}", err=True)
        sys.exit(error.exit_code)
    except _OF_A_PATH as error:
        if error.filename is None:
            raise
        path = error.filename2 or error.filename
        typer.echo(f"chronotune: {path}: must be a path that can be used ({error.strerror}). Name another", err=True)
        sys.exit(InputError.exit_code)
    sys.exit(0)


def _told(error: ChronotuneError) -> str:
    """One fault on one line, several below each other."""
    faults = getattr(error, "faults", ())
    lines = [f"  {fault}" for fault in faults]
    return str(error) if len(lines) < 2 else "\n".join([f"{len(lines)} things to mend", *lines])
