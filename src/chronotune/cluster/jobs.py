"""Sweeps as jobs of a Ray cluster that this machine is no node of: submit, follow, find again, stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from chronotune import __version__
from chronotune.cluster import package
from chronotune.cluster.parcel import Order, pack
from chronotune.config.cluster import ClusterProfile
from chronotune.config.recipe import Recipe
from chronotune.errors import ChronotuneError, InputError

ORDER = "CHRONOTUNE_JOB"
"""Environment variable of the driver on the cluster: its `parcel.Order`."""

RECORDS = Path("sweeps") / ".jobs"
"""Where this machine remembers, by a sweep's name, on which cluster it runs."""

STOP_SECONDS = 120
"""How long a stopped driver may take to end in order before it is killed."""

_PATIENCE = 60.0
"""Seconds for which a connection that broke is tried again."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """A sweep on a cluster: what is remembered of it here."""

    name: str
    """The sweep's."""
    directory: str
    """Its folder, there."""
    recipe: str
    """The recipe's name."""
    profile: dict[str, Any]
    id: str = ""
    """Of the job that drives it, or drove it last."""
    address: str = ""
    """The cluster's dashboard."""


@dataclass(frozen=True)
class State:
    """What the cluster says of a job."""

    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    exit_code: int | None
    """The driver's, when it has ended."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ENDED


def submit(recipe: Recipe, directory: str) -> Job:
    """Start a new sweep on the cluster of `recipe.cluster`, and remember it here.

    Args:
        recipe: With a profile of kind existing.
        directory: The sweep's folder, there.

    Raises:
        InputError: A sweep of this name runs there, the cluster refuses the token, or what is to be sent cannot be.
        ChronotuneError: The cluster does not answer.
    """
    profile = recipe.cluster
    assert profile.address is not None
    name = Path(directory).name
    if (earlier := recall(name)) and earlier.address == profile.address:
        _refuse_running(earlier)
    job = Job(name, directory, recipe.name, profile.model_dump(mode="json"), address=profile.address)
    with _draft() as place:
        files = place / "files"
        files.mkdir()
        return _start(job, pack(recipe, directory, files), files, profile)


def go_on(job: Job, trials: int = 0, minutes: float = 0) -> Job:
    """Resume a sweep on its cluster, whose last job has ended.

    Raises:
        InputError: It still runs, or the cluster refuses the token.
        ChronotuneError: The cluster does not answer.
    """
    _refuse_running(job)
    order = Order(job.directory, None, more_trials=trials, more_minutes=minutes)
    return _start(job, order, None, ClusterProfile.model_validate(job.profile))


def _refuse_running(job: Job) -> None:
    with suppress(UnknownJobError):  # a cluster that was started anew knows nothing of its earlier jobs
        if not state(job).has_ended:
            raise InputError(
                f"{job.name}: one driver at a time, but job {job.id} runs. See it: chronotune attach {job.name}"
            )


def _start(job: Job, order: Order, files: Path | None, profile: ClusterProfile) -> Job:
    job = replace(job, id=f"{job.name}-{uuid.uuid4().hex[:6]}")
    told = {"job_name": job.name, "recipe": job.recipe, "sweep": job.name, "directory": job.directory}
    told["chronotune"] = __version__
    told["environment"] = profile.environment.model_dump_json()
    if order.recipe is not None:
        told["configuration"] = json.dumps(order.recipe)
    with _draft() as place:
        given = environment(profile, order, files, place)
        with _talking(job.address) as client:
            try:
                client.submit_job(
                    entrypoint="python -m chronotune.driver", submission_id=job.id, metadata=told, runtime_env=given
                )
            except OSError:  # the answer was lost; was the question, too?
                if not _has_arrived(client, job):
                    raise
        _remember(job)
    return job


@contextmanager
def _draft() -> Iterator[Path]:
    """A folder that lasts as long as the block, for what a job brings along."""
    try:
        with tempfile.TemporaryDirectory(prefix="chronotune-") as place:
            yield Path(place)
    except OSError as error:
        raise ChronotuneError(
            f"a job is gathered in {tempfile.gettempdir()} and noted in {RECORDS}, but: {error}. "
            f"See that both have space and may be written"
        ) from error


def _remember(job: Job) -> None:
    RECORDS.mkdir(parents=True, exist_ok=True)
    (RECORDS / f"{job.name}.json").write_text(json.dumps(asdict(job), indent=2))


def _has_arrived(client: Any, job: Job, tries: int = 30) -> bool:
    """Whether the cluster knows a job whose submission it has not answered."""
    for _ in range(tries):
        time.sleep(1)
        with suppress(OSError, RuntimeError):
            return bool(client.get_job_info(job.id))
    return False


def environment(profile: ClusterProfile, order: Order, files: Path | None, place: Path) -> dict[str, Any]:
    """Ray's runtime environment of a job; chronotune as it is here is written into `place`."""
    wanted = profile.environment
    given: dict[str, Any] = {
        "env_vars": {
            **wanted.variables,
            ORDER: order.text(),
            "RAY_JOB_STOP_SIGNAL": "SIGINT",  # the driver ends as with Ctrl-C
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
        }
    }
    if files is not None and order.sent:
        given["working_dir"] = str(files)
    if wanted.wheel:
        given["py_modules"] = [str(folder) for folder in package.write(place)]
    if wanted.pip:
        given["pip"] = wanted.pip
    return given


def find(target: str, address: str | None = None) -> Job:
    """The job of a sweep, by its name or folder; one that is found on a cluster is remembered here.

    Args:
        target: The name, or a path that ends in it.
        address: The cluster's dashboard; None: as remembered here.

    Raises:
        InputError: Nothing is known of it.
        ChronotuneError: The cluster does not answer.
    """
    name = Path(target).name
    remembered = recall(name)
    if remembered is None and address is None:
        raise InputError(
            f"{target}: no sweep of this name is known here, neither a job that was submitted from this folder nor a "
            f"sweep in it. See `chronotune ls`, or say on which cluster it runs: --cluster NAME, or its dashboard "
            f"http://HOST:8265"
        )
    if remembered is not None and address in (None, remembered.address):
        return remembered
    assert address is not None
    with _talking(address) as client:
        jobs = [job for job in client.list_jobs() if (job.metadata or {}).get("sweep") == name]
    if not jobs:
        raise InputError(f"{name}: the cluster at {address} has no job of this sweep. Check the name and the cluster")
    newest = max(jobs, key=lambda job: (job.status.value not in ENDED, job.start_time or 0))  # one that runs before all
    job = _found(name, newest, address)
    with suppress(OSError):  # it is found all the same
        _remember(job)
    return job


def _found(name: str, newest: Any, address: str) -> Job:
    """What a job's metadata tell of it, enough to resume its sweep."""
    told = newest.metadata
    profile = {
        "name": "existing",
        "kind": "existing",
        "address": address,
        "sweeps": str(Path(told["directory"]).parent),
        "environment": json.loads(told.get("environment", "{}")),
    }
    return Job(name, told["directory"], told["recipe"], profile, newest.submission_id, address)


def recall(name: str) -> Job | None:
    """What this machine remembers of a sweep's job."""
    try:
        return Job(**json.loads((RECORDS / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def state(job: Job) -> State:
    """What the cluster says of a job.

    Raises:
        InputError: It does not know it, or refuses the token.
        ChronotuneError: It does not answer.
    """
    with _talking(job.address, job) as client:
        info = client.get_job_info(job.id)
    return State(str(info.status.value), (info.message or "").strip(), info.driver_exit_code)


def log_of(job: Job) -> str:
    """All that the job has printed so far."""
    with _talking(job.address, job) as client:
        return str(client.get_job_logs(job.id))


def stop(job: Job) -> bool:
    """Ask the driver to end as with Ctrl-C: what is finished is recorded, and the sweep can be resumed.

    Returns:
        Whether it was running.
    """
    with _talking(job.address, job) as client:
        return bool(client.stop_job(job.id))


def wait(job: Job, seconds: float = STOP_SECONDS + 30) -> State:
    """The state of a job when it has ended, or after so many seconds."""
    until = time.monotonic() + seconds
    while not (now := state(job)).has_ended and time.monotonic() < until:
        time.sleep(1)
    return now


def follow(job: Job, write: Callable[[str], None]) -> State:
    """Hand on what the job prints, from its beginning, until it has ended; Ctrl-C leaves it alone.

    Raises:
        ChronotuneError: The cluster has not answered for a minute.
        OSError: By `write`.
    """
    printed, broken_since = _Printed(write), None
    while True:
        printed.begin_again()
        try:
            for text in _tail(job):
                printed.take(text)
            now = state(job)
            if now.has_ended:
                printed.begin_again()
                printed.take(log_of(job))
                return now
            broken_since = None
        except InputError:
            raise
        except ChronotuneError:
            now_broken = time.monotonic()
            if broken_since is None or printed.has_come:  # it answered before it broke off
                broken_since = now_broken
            if now_broken - broken_since > _PATIENCE:
                raise
        time.sleep(1)


class _Printed:
    """Hands a log on that comes from its beginning each time a connection is made, each character once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._seen, self._passed = write, 0, 0

    @property
    def has_come(self) -> bool:
        """Whether any of the log has come since it was last begun."""
        return self._passed > 0

    def begin_again(self) -> None:
        """The log comes from its beginning."""
        self._passed = 0

    def take(self, text: str) -> None:
        """The next part of it."""
        self._passed += len(text)
        if (new := self._passed - self._seen) > 0:
            self._write(text[-new:])
            self._seen = self._passed


def _tail(job: Job) -> Iterator[str]:
    """The log, part by part, while the connection lasts; what its reader does wrong is no fault of the cluster's."""

    async def following(parts: AsyncIterator[str]) -> str | None:
        return await anext(parts, None)

    with _talking(job.address, job) as client, asyncio.Runner() as runner:
        parts = client.tail_job_logs(job.id)
        while (text := runner.run(following(parts))) is not None:
            yield text


class UnknownJobError(InputError):
    """The cluster has no such job."""


@contextmanager
def _talking(address: str, job: Job | None = None) -> Iterator[Any]:
    """A client of the cluster's job server; what goes wrong becomes a sentence.

    The token is Ray's own affair: RAY_AUTH_TOKEN, or the file that RAY_AUTH_TOKEN_PATH names.
    """
    if any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import aiohttp
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InputError(
            f"jobs need Ray's dashboard package ({error}). Run `pip install 'chronotune[dashboard]'`"
        ) from error
    try:
        logging.getLogger("ray.dashboard.modules").setLevel(logging.WARNING)  # what it uploads is nobody's news
        logging.getLogger("ray._private.runtime_env").setLevel(logging.WARNING)
        with _not_elsewhere():
            client = JobSubmissionClient(address)
        yield client
    except AuthenticationError as error:
        raise InputError(
            f"{address}: the cluster asks for its token, but RAY_AUTH_TOKEN {_given()}. Set RAY_AUTH_TOKEN to the "
            f"cluster's, or RAY_AUTH_TOKEN_PATH to a file that holds it"
        ) from error
    except (OSError, aiohttp.ClientError) as error:
        raise ChronotuneError(
            f"{address}: the cluster's dashboard must answer, but it does not ({reason_of(error)}). Check the address"
        ) from error
    except RuntimeError as error:
        if job is not None and "does not exist" in str(error):
            raise UnknownJobError(
                f"{address}: the cluster knows no job {job.id}; it may have been started anew. "
                f"Go on with the sweep: chronotune resume {job.name}"
            ) from error
        raise ChronotuneError(f"{address}: {(str(error).strip().splitlines() or ['no reason'])[0]}") from error


def reason_of(error: Exception) -> str:
    """The kind of an error and its beginning: the libraries below tell long stories."""
    return f"{type(error).__name__}: {str(error)[:160]}"


def _given() -> str:
    return "holds another" if os.environ.get("RAY_AUTH_TOKEN") else "is not set, or its file holds another"


@contextmanager
def _not_elsewhere() -> Iterator[None]:
    """Ray prefers what these variables name to the address that it is given."""
    hidden = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in hidden.items() if value is not None})
