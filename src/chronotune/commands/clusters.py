"""Commands about sweeps that run as jobs of a cluster: follow, look, stop."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chronotune.commands.shared import JsonOption, print_json

if TYPE_CHECKING:
    from chronotune.cluster.jobs import Job
    from chronotune.config.recipe import Recipe

TargetArgument = Annotated[str, typer.Argument(help="A sweep's name, or its folder on the cluster.", metavar="SWEEP")]
ClusterOption = Annotated[
    str | None,
    typer.Option(help="A cluster profile or http://HOST:8265, where the sweep was not submitted from this folder."),
]


def attach(target: TargetArgument, cluster: ClusterOption = None) -> None:
    """Show the log and the tables of a sweep on a cluster, from the beginning until it ends; Ctrl-C only looks away.

    Example: `chronotune attach steel-20261124-101500`
    """
    _follow(_find(target, cluster))


def status(target: TargetArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Say how a sweep is doing: its job on a cluster and the last lines that it printed, or what its folder tells.

    Example: `chronotune status steel-20261124-101500`
    """
    from dataclasses import asdict

    from chronotune.cluster.jobs import log_of, recall, state
    from chronotune.commands.sweeps import show
    from chronotune.errors import ChronotuneError

    remembered = recall(Path(target).name)
    if cluster is None and remembered is None and (folder := _folder(target)):
        show(folder, as_json)
        return
    job = _find(target, cluster)
    try:
        now, last = state(job), log_of(job).splitlines()[-3:]
    except ChronotuneError as error:
        if (folder := _folder(job.directory)) is None:
            raise
        typer.echo(f"{error}\n{folder} is here, and tells:", err=True)
        show(folder, as_json)
        return
    if as_json:
        print_json({"sweep": job.name, "directory": job.directory, "job": job.id, **asdict(now), "last": last})
        return
    typer.echo(f"{job.name}: {now.status.lower()}; job {job.id} at {job.address}, sweep in {job.directory}")
    for line in last:
        typer.echo(f"  {line}")


def stop(target: TargetArgument, cluster: ClusterOption = None) -> None:
    """Stop a sweep on a cluster as with Ctrl-C: everything finished is recorded, `resume` goes on.

    Example: `chronotune stop steel-20261124-101500`
    """
    from chronotune.cluster import jobs

    job = _find(target, cluster)
    if not jobs.stop(job):
        typer.echo(f"{job.name}: its job has ended already")
        return
    ended = jobs.wait(job)
    typer.echo(f"{job.name}: {ended.status.lower()}; go on with: chronotune resume {job.name}")


def begin(recipe: Recipe, directory: Path | None) -> None:
    """Submit a new sweep and follow it; its data are checked here first where they are here."""
    from chronotune.cluster.jobs import submit
    from chronotune.data.prepare import load
    from chronotune.errors import Fault, InputError
    from chronotune.sweep import new_folder

    if directory is not None and str(directory) != directory.name:
        rule = f"a sweep on a cluster goes into {recipe.cluster.sweeps} there, so it must be a name, but is {directory}"
        raise InputError([Fault("--dir", "", rule, f"Give --dir {directory.name or 'NAME'}, or set cluster.sweeps")])
    path = recipe.data.path
    if recipe.data.source == "solar" or (path and Path(path).expanduser().exists()):
        load(recipe)
    name = (directory or new_folder(recipe)).name
    _follow(submit(recipe, f"{recipe.cluster.sweeps}/{name}"))


def go_on(directory: Path, trials: int, minutes: float) -> bool:
    """Resume a sweep that runs elsewhere; False when it is no such one."""
    from chronotune.cluster import jobs

    if directory.exists() or (job := jobs.recall(directory.name)) is None:
        return False
    _follow(jobs.go_on(job, trials, minutes))
    return True


def _find(target: str, cluster: str | None) -> Job:
    from chronotune.cluster.jobs import find, recall

    if cluster is None and recall(Path(target).name) is None:
        _refuse_local(target)
    if cluster is None or "://" in cluster:
        return find(target, cluster)
    from chronotune.config.load import load_cluster

    return find(target, load_cluster(cluster).address)


def _refuse_local(target: str) -> None:
    """Do nothing unless the sweep is in a folder here and no process of another machine drives it.

    A folder that several machines see may be that of a job, submitted elsewhere.

    Raises:
        InputError: It is; says whether it runs, and what to do instead.
    """
    from chronotune.errors import InputError
    from chronotune.lease import is_alive, is_here, read_holder

    if (folder := _folder(target)) is None:
        return
    rule = f"{folder}: attach and stop are for sweeps that run as jobs of a cluster, but this one is here"
    if (holder := read_holder(folder)) is None or not is_alive(holder):
        remedy = f"It does not run: chronotune show {folder}, or go on with it: chronotune resume {folder}"
    elif is_here(holder):
        where = f"Process {holder['pid']} on {holder['host']}"
        remedy = f"{where} drives it: chronotune show {folder}, or stop it: kill -INT {holder['pid']}"
    else:
        return
    raise InputError(f"{rule}. {remedy}; or, if it is a job of a cluster, name that with --cluster")


def _folder(target: str) -> Path | None:
    """The folder of a sweep, where this machine sees it."""
    from chronotune.study import is_sweep

    return next((path for path in (Path(target), Path("sweeps") / target) if is_sweep(path)), None)


def _follow(job: Job) -> None:
    """Print what the job prints; the exit code is the driver's."""
    from chronotune.cluster.jobs import follow

    typer.echo(f"job {job.id} at {job.address}; sweep in {job.directory}", err=True)
    typer.echo(f"it goes on without this terminal: chronotune attach|status|stop {job.name}", err=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray sets one of its own
    try:
        ended = follow(job, _write)
    except KeyboardInterrupt:
        typer.echo(f"\nno longer watched; it goes on. chronotune attach {job.name}", err=True)
        raise typer.Exit(130) from None
    if ended.status == "STOPPED":
        typer.echo(f"stopped; go on with: chronotune resume {job.name}", err=True)
        raise typer.Exit(130)
    if ended.status == "FAILED":
        code = ended.exit_code or 1
        if code not in (2, 130):
            typer.echo(
                f"chronotune: the job failed: {ended.message.splitlines()[0] if ended.message else ''}", err=True
            )
        raise typer.Exit(code)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
