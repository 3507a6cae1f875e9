"""A sweep on a cluster with a token, watched: `python tests/watched.py --screenshots FOLDER`, by hand, some minutes.

A Ray head of its own (dashboard on 127.0.0.1, token on), an S3-compatible server, MLflow, PostgreSQL with a password.
A job submitted from outside runs `tuning/smoke.yaml`; meanwhile the dashboard is looked at in a headless browser (a
Chromium in $CHROMIUM or on the path), and the metrics port is read. Afterwards all that was written
(study, logs, report, MLflow, Ray's own session logs, the package as it is sent) is searched for secrets, and once more
with one planted.
Exits with 1 when a line says FAILED.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "cluster")]

from find_secrets import find, in_processes, secrets_of  # noqa: E402  (found by the line above)
from look import browser  # noqa: E402
from machines import free_ports  # noqa: E402
from services import Services  # noqa: E402

from chronotune.cluster import jobs, package  # noqa: E402
from chronotune.config.load import load_recipe  # noqa: E402
from chronotune.errors import ChronotuneError  # noqa: E402
from chronotune.gauges import GAUGES, WINDOWS  # noqa: E402
from chronotune.study import read  # noqa: E402

JOB = "watched"
_began = time.monotonic()
_failed: list[str] = []


def say(text: str, ok: bool = True) -> None:
    """A line of the timeline."""
    print(f"{time.monotonic() - _began:7.1f} s  {'' if ok else 'FAILED: '}{text}", flush=True)
    if not ok:
        _failed.append(text)


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process of ours, stopped by its own id at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def status(address: str, token: str | None = None) -> int:
    """HTTP status of a request; 0 while nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_for(address: str, token: str | None = None, seconds: float = 180) -> None:
    """Until an address answers at all.

    Raises:
        TimeoutError: It does not.
    """
    end = time.monotonic() + seconds
    while status(address, token) == 0:
        if time.monotonic() > end:
            raise TimeoutError(address)
        time.sleep(0.5)


def look(address: str, token: str, job: str, to: Path) -> None:
    """Screenshots of the pages that people watch; a page that does not show the word that it must fails."""
    with browser() as opened:
        target = opened.call("Target.createTarget", url="about:blank")["targetId"]
        session = opened.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        opened.call("Network.enable", session)
        opened.call("Network.setCookie", session, name="ray-authentication-token", value=token, url=address)
        size = {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        opened.call("Emulation.setDeviceMetricsOverride", session, **size)

        def ask(expression: str) -> str:
            answer = opened.call("Runtime.evaluate", session, expression=expression, returnByValue=True)
            return str(answer["result"].get("value") or "")

        def show(name: str, path: str, word: str) -> None:
            opened.call("Page.navigate", session, url=f"{address}/{path}")
            for _ in range(6):  # a log is read once
                if shown := _within(5, lambda: word in ask("document.body.innerText")):
                    break
                opened.call("Page.reload", session)
            picture = opened.call("Page.captureScreenshot", session)["data"]
            (to / f"{name}.png").write_bytes(base64.b64decode(picture))
            say(f"browser: {name} shows {word!r}", shown)

        show("jobs", "#/jobs", job)
        show("job", f"#/jobs/{job}", "User-provided metadata")
        show("actors", "#/actors", f"{JOB} worker")
        row = f"[...document.querySelectorAll('tr')].find(row => row.innerText.includes('{JOB} worker'))"
        actor = ask(f"{row}?.querySelector('a[href*=\"actors/\"]')?.getAttribute('href')")
        show("actor", actor.lstrip("/"), "begins")


def _within(seconds: float, happens: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while not (happened := happens()) and time.monotonic() < end:
        time.sleep(0.5)
    return happened


def metrics_of(port: int) -> set[str]:
    """Names of ours on the metrics port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return set(re.findall(r"^(ray_chronotune_\w+){", answer.read().decode(), re.MULTILINE))


def watched(folder: Path, screenshots: Path) -> None:
    """All of it, in `folder`."""
    token = secrets.token_hex(32)
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(token)
    ports = dict(zip(("gcs", "dashboard", "metrics", "agent", "environment"), free_ports(5), strict=True))
    with Services(folder) as services:
        say("object store, MLflow and PostgreSQL are up")
        nodes = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), **services.variables}
        os.environ.update(nodes)
        os.chdir(folder)  # where the job is remembered
        knows = secrets_of(nodes)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the job says `python`
        with running(head(folder, ports), {**os.environ, "PATH": path}, folder / "head.log"):
            play(folder, ports, token, services, screenshots)
            say("no secret in the arguments of a process", not list(in_processes(knows)))
        say(f"sent with a job: {', '.join(part.name for part in package.write(folder / 'sent'))}")
        scan(folder, services.database, knows)


def head(folder: Path, ports: dict[str, int]) -> list[str]:
    """The command of a Ray head whose dashboard is seen from this machine only."""
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    seen = ["--dashboard-host=127.0.0.1", f"--dashboard-port={ports['dashboard']}"]
    own = [f"--port={ports['gcs']}", f"--metrics-export-port={ports['metrics']}", f"--temp-dir={folder}/ray"]
    agents = [f"--dashboard-agent-listen-port={ports['agent']}", f"--runtime-env-agent-port={ports['environment']}"]
    return [ray, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", *seen, *own, *agents]


def play(folder: Path, ports: dict[str, int], token: str, services: Services, screenshots: Path) -> None:
    """A sweep from its submission to its end, looked at meanwhile."""
    address, sweep = f"http://127.0.0.1:{ports['dashboard']}", folder / "sweeps" / JOB
    wait_for(f"{address}/api/version", token)
    say("head is up")
    for given, wanted in ((None, 401), ("0" * 64, 403), (token, 200)):
        got = status(f"{address}/api/jobs/", given)
        whose = {None: "no", token: "the"}.get(given, "a wrong")
        say(f"jobs with {whose} token: {got}", got == wanted)
    names = submit_and_watch(address, sweep, token, services.settings, screenshots, ports["metrics"])
    wanted_names = {*(f"ray_{name}" for name in GAUGES), f"ray_{WINDOWS}_total"}
    say(f"metrics port: {len(names)} of {len(wanted_names)} names", names == wanted_names)
    told = {trial.state for trial in read(sweep).trials}
    say(f"trials: {len(read(sweep).trials)}, {told}", told <= {"complete", "pruned"})
    say(f"study in PostgreSQL: {services.studies()}", services.studies() == [JOB])
    say(f"runs in MLflow: {len(services.runs())}", len(services.runs()) == len(read(sweep).trials) + 1)
    say("no checkpoint lies in the sweep's folder", not (sweep / "checkpoints").exists())


def submit_and_watch(
    address: str, sweep: Path, token: str, settings: Sequence[str], screenshots: Path, port: int
) -> set[str]:
    """Run the sweep as a job, as `chronotune run` submits it; the names on the metrics port shortly before its end."""
    profile = {"name": "watched", "kind": "existing", "address": address, "sweeps": str(sweep.parent)}
    options = (f"cluster={json.dumps({**profile, 'gpus_per_trial': 0})}", "budget.trials=8", *settings)
    recipe, made = load_recipe("smoke", options), list[jobs.Job]()

    def submitted() -> bool:
        with contextlib.suppress(ChronotuneError):  # the agent that starts jobs comes up after the dashboard
            made.append(jobs.submit(recipe, str(sweep)))
        return bool(made)

    say("submitted", _within(120, submitted))
    [job], names, looked = made, set[str](), False
    while not jobs.state(job).has_ended:
        time.sleep(2)
        if not looked and (sweep / "logs").exists() and len(list((sweep / "logs").glob("*.log"))) > 1:
            say("trials run; looking at the dashboard")
            look(address, token, job.id, screenshots)
            looked = True
        with contextlib.suppress(OSError):
            names |= metrics_of(port)
    ended = jobs.state(job).status
    say(f"job ended: {ended}", ended == "SUCCEEDED")
    if ended != "SUCCEEDED":
        print(jobs.log_of(job)[-3000:])
    say("the dashboard was looked at", looked)
    return names


def scan(folder: Path, database: Path, known: dict[str, str]) -> None:
    """All that was written but the token's own file; then with a secret planted in a log of Ray's."""
    places = [database, *(path for path in folder.iterdir() if path.name != "token")]
    files = sum(path.is_file() for place in places for path in place.rglob("*"))
    found, what = list(find(places, known)), "study, logs, report, MLflow, Ray's session, package"
    say(f"scan of {files} files ({what}): {len(found)} secrets {found[:3]}", not found)
    planted = plant(folder, next(iter(known.values())))
    again = {Path(finding.place).name for finding in find(places, known)}
    say(f"scan with one planted in {len(planted)} places: found in {sorted(again)}", again == planted)


def plant(folder: Path, secret: str) -> set[str]:
    """Write a secret into a log of Ray's, the report and the package as it is sent; the names of these files."""
    log, report = next((folder / "ray").rglob("gcs_server*")), folder / "sweeps" / JOB / "report.html"
    left = folder / "sent" / "chronotune" / "left.env"
    left.write_text(f"KEY={secret}\n")
    with log.open("a") as to_log, report.open("a") as to_report:
        to_log.write(f"\nAuthorization: Bearer {secret}\n")
        to_report.write(f"<!-- {base64.b64encode(f'key={secret}'.encode()).decode()} -->")
    return {log.name, report.name, left.name}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screenshots", type=Path, default=Path("screenshots"))
    parser.add_argument("--keep", action="store_true", help="leave the folder with all that was written")
    arguments = parser.parse_args()
    arguments.screenshots.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ctw-", dir="/tmp"))
    try:
        watched(folder, arguments.screenshots.absolute())
    finally:
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if _failed else 0


if __name__ == "__main__":
    sys.exit(main())
