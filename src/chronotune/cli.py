"""The command line: its commands in the order of `--help`, and how it ends. What each does is in `commands`."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from chronotune.commands import clusters, files, models, sweeps
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
    sys.exit(0)


def _told(error: ChronotuneError) -> str:
    """One fault on one line, several below each other."""
    faults = getattr(error, "faults", ())
    lines = [f"  {fault}" for fault in faults]
    return str(error) if len(lines) < 2 else "\n".join([f"{len(lines)} things to mend", *lines])
