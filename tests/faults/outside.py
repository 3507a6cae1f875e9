"""What lies outside the sweep: a study's PostgreSQL server, killed and restarted, and Optuna's own dashboard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers import first_result
from judge import Story
from place import NotAsPromisedError, Place
from world import NotPossibleError, free_port

from chronotune.study import JOURNAL, Reading, read

if TYPE_CHECKING:
    from postgres_parts import Server

AWAY_SECONDS = 5


def killed_driver(place: Place) -> Story:
    """The driver is killed with SIGKILL after its first result, its study in PostgreSQL."""
    with _server() as server:
        place = _in_database(place, server)
        with place.start() as process:
            place.until(process, first_result)
            process.kill()
        left = place.remains()
        place.run("resume", "sweep")
        return Story("`resume` goes on", (_as_journal(place),), left)


def restarted_server(place: Place) -> Story:
    """The PostgreSQL server is killed after the first result, and is away for some seconds."""
    with _server() as server:
        place = _in_database(place, server)
        with place.start() as process:
            place.until(process, first_result)
            server.kill()
            time.sleep(AWAY_SECONDS)
            server.start()
            place.wait(process)
        if "waits for it" not in place.printed:
            raise NotAsPromisedError(f"nobody is told that the database was away:\n{place.printed}")
        return Story("waits, and goes on by itself", (_as_journal(place),))


def lost_server(place: Place) -> Story:
    """The PostgreSQL server is killed after the first result, and comes back when the driver has given up."""
    with _server() as server:
        place = _in_database(place, server)
        os.environ["CHRONOTUNE_STUDY_PATIENCE"] = str(AWAY_SECONDS)
        try:
            process = place.start()
        finally:
            del os.environ["CHRONOTUNE_STUDY_PATIENCE"]
        with process:
            place.until(process, first_result)
            server.kill()
            place.wait(process, code=1)
        if "the study's database must answer" not in place.printed:
            raise NotAsPromisedError(f"nobody is told why the sweep ended:\n{place.printed}")
        server.start()
        left = place.remains()
        place.run("resume", "sweep")
        return Story("ends with a sentence, `resume` goes on", (_as_journal(place),), left)


def dashboard(place: Place) -> Story:
    """`optuna-dashboard` looks at the journal while the sweep runs, and writes nothing."""
    own = str(Path(sys.executable).parent)  # of this environment, though nobody has activated it
    program = shutil.which("optuna-dashboard", path=own) or shutil.which("optuna-dashboard")
    if program is None:
        raise NotPossibleError("optuna-dashboard is not installed (pip install optuna-dashboard)")
    with place.start() as process:
        place.until(process, _begun)  # no later: it takes its time to start
        port = free_port()
        with _serving([program, "--port", str(port), str(place.sweep / JOURNAL)]):
            api, seen = f"http://127.0.0.1:{port}/api/studies", set[int]()
            [study, *_] = _get(api, process)["study_summaries"]
            while process.poll() is None:
                seen.add(len(_get(f"{api}/{study['study_id']}?after=0", process)["trials"]))
                time.sleep(0.5)
            place.wait(process)
    if len(seen) < 2:
        raise NotAsPromisedError(f"the dashboard should have seen trials come, but saw {seen}")
    writers = {json.loads(line)["worker_id"] for line in (place.sweep / JOURNAL).read_text().splitlines()}
    if len({writer.rsplit("-", 1)[0] for writer in writers}) != 1:
        raise NotAsPromisedError(f"only the driver may write the journal, but {writers} did")
    return Story(f"the dashboard saw {max(seen)} trials, and wrote nothing", (place,), kills=0)


def _begun(_: Reading) -> bool:
    """The study can be read."""
    return True


def _in_database(place: Place, server: Server) -> Place:
    return Place(place.folder, place.concurrent, (*place.settings, f"storage={server.new_database()}"))


def _as_journal(place: Place) -> Place:
    """Bring the study into a journal, since the server ends before the judge looks."""
    import optuna

    address = json.loads((place.sweep / "study.json").read_text())
    backend = optuna.storages.journal.JournalFileBackend(str(place.sweep / JOURNAL))
    storage, before = optuna.storages.JournalStorage(backend), read(place.sweep)
    for study in optuna.get_all_study_names(address["storage"]):
        optuna.copy_study(from_study_name=study, from_storage=address["storage"], to_storage=storage)
    (place.sweep / "study.json").unlink()
    if read(place.sweep).attributes != before.attributes:
        raise NotAsPromisedError("the copy of the study is another one")
    return place


@contextmanager
def _server() -> Iterator[Server]:
    sys.path.append(str(Path(__file__).parents[1]))  # this is a script's folder: the tests' helpers are above it
    from postgres_parts import server_or_reason

    found = server_or_reason()
    if isinstance(found, str):
        raise NotPossibleError(found)
    with found:
        yield found


@contextmanager
def _serving(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _get(address: str, driver: subprocess.Popen[str]) -> Any:
    """What an address answers, as JSON; asked again while it does not, for as long as the driver runs."""
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)
        except OSError as error:
            if driver.poll() is not None:
                raise NotAsPromisedError(f"{address} does not answer: {error}") from error
        time.sleep(0.2)
