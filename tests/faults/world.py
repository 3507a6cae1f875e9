"""Faults of what a sweep stands on: disks, files, nodes, the MLflow server, its data and its recipe."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from drivers import first_result, killed_at_first_result
from judge import Story
from moments import MOMENTS
from place import NotAsPromisedError, Place

from chronotune.catalog import entries
from chronotune.data.sources import solar
from chronotune.finalists import champion
from chronotune.study import JOURNAL, read

sys.path.append(str(Path(__file__).parents[1]))  # this is a script's folder: the tests' helpers are above it
from mlflow_parts import NoServerError, kill_group, mlflow_server

NODE = Path(__file__).parent / "node.py"


class NotPossibleError(Exception):
    """This machine does not let the fault be made."""


IMPOSSIBLE = (NotPossibleError, NoServerError)
"""All that says so."""


def torn_line(place: Place) -> Story:
    """A killed driver's last line of the journal is only half there."""
    left = killed_at_first_result(place)
    with (place.sweep / JOURNAL).open("a") as journal:
        journal.write('{"op_code":8,"worker_id":"torn in the mid')
    place.run("resume", "sweep")
    return Story("killed, line torn, resumed", (place,), f"{left}, torn line")


def damaged_checkpoints(place: Place) -> Story:
    """Of a running trial's two checkpoints one has a wrong byte, the other is cut short: it begins anew."""
    place.run(code=-signal.SIGKILL, fault=MOMENTS["report"])
    left = place.remains()
    first, last = (place.sweep / "checkpoints/0000" / str(windows) for windows in (16, 48))
    _flip_a_byte(last / "weights.safetensors")
    state = (first / "state.pt").read_bytes()
    (first / "state.pt").write_bytes(state[: len(state) // 2])
    place.run("resume", "sweep")
    log = (place.sweep / "logs/0.log").read_text()
    if not all(f"{windows} is skipped" in log for windows in (16, 48)):
        raise NotAsPromisedError(f"the damage was not seen:\n{log}")
    return Story("killed, both checkpoints damaged, resumed", (place,), left)


def damaged_winner(place: Place) -> Story:
    """The checkpoint that the winner is to be written from is damaged: it is trained again."""
    left = _killed_before_the_winner(place)
    best = champion(read(place.sweep))
    assert best is not None
    assert best.median is not None
    assert best.median.best is not None
    _flip_a_byte(place.sweep / "checkpoints" / best.median.best.attributes["checkpoint"] / "weights.safetensors")
    return _made_again(place, "killed, winner's checkpoint damaged, resumed", left)


def damaged_everything(place: Place) -> Story:
    """All checkpoints are damaged: the winner is trained again, the average that could challenge it is left out."""
    left = _killed_before_the_winner(place)
    for weights in place.sweep.glob("checkpoints/**/weights.safetensors"):
        _flip_a_byte(weights)
    story = _made_again(place, "killed, all checkpoints damaged, resumed", left)
    if "is not averaged" not in place.printed or read(place.sweep).attributes["choice"]["averaged"]:
        raise NotAsPromisedError("something damaged was averaged")
    return story


def _killed_before_the_winner(place: Place) -> str:
    place.run(code=-signal.SIGKILL, fault=MOMENTS["winner"])
    return place.remains()


def _made_again(place: Place, happened: str, left: str) -> Story:
    place.run("resume", "sweep")
    if not any("is trained again" in log.read_text() for log in place.sweep.glob("logs/finalists/*.log")):
        raise NotAsPromisedError("nothing was trained again")
    return Story(happened, (place,), left)


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Callable[[int], None]]:
    """A file system of a few KiB at `folder`; the function that comes with it gives it another size.

    Raises:
        NotPossibleError: Nobody but root may mount one.
    """
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        raise NotPossibleError(f"needs the right to mount a file system: {mounted.stderr.decode().strip()}")

    def resize(kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", folder], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def full_disk_at_a_checkpoint(place: Place) -> Story:
    """The checkpoints' disk is too small for them; the study's is not."""
    with small_disk(place.folder / "small", kib=300) as resize:
        with place.start() as process:
            _checkpoints_elsewhere(place, process, place.folder / "small")
            place.wait(process, 1)
        left = _halted(place)
        resize(400_000)
        place.run("resume", "sweep")
        outcome = Story("halts with code 1, given room, resumed", (place,), left)
        shutil.copytree(place.folder / "small", place.folder / "copied")
    (place.sweep / "checkpoints").unlink()
    (place.folder / "copied").rename(place.sweep / "checkpoints")
    return outcome


def full_disk_at_the_journal(place: Place) -> Story:
    """The study's disk is full after the first result; that of the checkpoints is not."""
    (place.folder / "roomy").mkdir()
    with small_disk(place.sweep, kib=400_000) as resize:
        with place.start() as process:
            _checkpoints_elsewhere(place, process, place.folder / "roomy")
            place.until(process, first_result)
            resize(max(shutil.disk_usage(place.sweep).used // 1024, 4))
            place.wait(process, 1)
        left = _halted(place)
        resize(400_000)
        place.run("resume", "sweep")
        shutil.copytree(place.sweep, place.folder / "copied")
    place.sweep.rmdir()
    (place.folder / "copied").rename(place.sweep)
    return Story("halts with code 1, given room, resumed", (place,), left)


def _checkpoints_elsewhere(place: Place, process: subprocess.Popen[str], folder: Path) -> None:
    """Put the checkpoints of a sweep that begins onto another disk."""
    while not (place.sweep / "recipe.yaml").exists() and process.poll() is None:
        time.sleep(0.02)
    (place.sweep / "checkpoints").symlink_to(folder)


def _halted(place: Place) -> str:
    """What a sweep left that had no room: no failed trial, and a sentence instead of a traceback."""
    if "resume" not in place.printed.splitlines()[-1] or "Traceback" in place.printed:
        raise NotAsPromisedError(f"it does not say what to do:\n{place.printed}")
    return place.remains()


def lost_node(place: Place) -> Story:
    """The node that trains is killed in mid-sweep; another joins."""
    with place.start_process([sys.executable, str(NODE), *place.command[3:]]) as process:
        place.wait(process)
    return Story("goes on by itself on another node", (place,))


def mlflow_outage(place: Place, back: str) -> Story:
    """MLflow's server dies after the first result; it comes back in mid-sweep, or after the end."""
    port = free_port()
    settings = [f"tracking.uri=http://127.0.0.1:{port}"]
    if back == "early":
        settings.append("budget.trials=32")  # a server takes its time to start, and the mirror up to 30 s to see it
    served = Place(place.folder, place.concurrent, tuple(settings))
    with mlflow_server(served.folder, port) as server, served.start() as process:
        served.until(process, first_result)
        kill_group(server)
        if back == "early":
            time.sleep(3)  # the mirror finds nobody there
            with mlflow_server(served.folder, port):
                served.wait(process)
            return Story("goes on, catches up by itself", (place,))
        served.wait(process)
    if "chronotune mirror" not in served.printed:
        raise NotAsPromisedError(f"nobody is told that MLflow lacks something:\n{served.printed}")
    with mlflow_server(served.folder, port):
        served.run("mirror", "sweep")
    return Story("goes on and says so, `chronotune mirror` catches up", (place,))


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def changed_inputs(place: Place) -> Story:
    """Other data, another recipe, other weights: refused, naming what differs, and the study is left as it was."""
    data, weights = place.folder / "solar.csv", place.folder / "model" / "model.safetensors"
    solar().write_csv(data)
    own = _own_model(place.folder / "model")
    settings = ("data.source=file", f"data.path={data}", f"model={own}")
    changed = Place(place.folder, place.concurrent, settings)
    left = killed_at_first_result(changed)
    journal = changed.sweep / JOURNAL
    before, recipe = journal.read_bytes(), changed.sweep / "recipe.yaml"
    _refused(changed, data, data.read_bytes().replace(b",0.0,", b",0.5,", 1), 2, "data was")
    for old, new, says in (
        ("windows: 48", "windows: 96", "budget.windows was"),
        ("seed: 0", "seed: 7", "seed was"),
        ("validation_origins: 4", "validation_origins: 5", "split.validation_origins was"),
        ("values: [48, 96]", "values: [48]", "search space was"),
    ):
        content = recipe.read_text()
        if old not in content:
            raise NotAsPromisedError(f"{old!r} is not in the recipe:\n{content}")
        _refused(changed, recipe, content.replace(old, new, 1).encode(), 2, says)
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    _refused(changed, weights, bytes(flipped), 2, "SHA-256")
    if journal.read_bytes() != before:
        raise NotAsPromisedError("a refused resume has written into the study")
    changed.run("resume", "sweep")
    return Story("6 changes refused by name, resumed without", (place,), left)


def _own_model(folder: Path) -> Path:
    """A copy of the embedded model, and its preset."""
    [preset] = [entry.path for entry in entries("model") if entry.name == "tiny"]
    shutil.copytree(preset.parent / "tiny", folder, ignore=shutil.ignore_patterns("*.py", "*.md"))
    own = folder / "tiny.yaml"
    own.write_text(preset.read_text().replace("weights: tiny", "weights: ."))
    return own


def _refused(place: Place, file: Path, content: bytes, code: int, says: str) -> None:
    before = file.read_bytes()
    file.write_bytes(content)
    printed = place.run("resume", "sweep", code=code)
    file.write_bytes(before)
    if says not in printed:
        raise NotAsPromisedError(f"it should say {says!r}:\n{printed}")
