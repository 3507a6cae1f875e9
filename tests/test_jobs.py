"""Sweeps as jobs: what is sent, what is remembered, and what the cluster's answers mean. No Ray is started."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError
from typer.testing import CliRunner

from chronotune import cli, driver
from chronotune.cluster import jobs, package
from chronotune.cluster.parcel import Order
from chronotune.config.cluster import ClusterProfile
from chronotune.config.load import load_recipe
from chronotune.config.recipe import Recipe
from chronotune.errors import ChronotuneError, InputError
from chronotune.lease import Lease
from sweep_parts import new_study

ADDRESS = "http://127.0.0.1:1"


def _profile(**keys: Any) -> dict[str, Any]:
    return {"name": "far", "kind": "existing", "address": ADDRESS, "sweeps": "/mnt/sweeps", **keys}


def _recipe(*overrides: str, **keys: Any) -> Recipe:
    return load_recipe("smoke", [f"cluster={json.dumps(_profile(**keys))}", *overrides])


class Server:  # its methods are those of Ray's client
    """What `JobSubmissionClient` is to the cluster: remembers what it was asked, answers as told."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.modules: list[str] = []
        self.statuses = ["RUNNING"]
        self.log = ["one\n", "two\n"]
        self.breaks = 0
        self.stopped: list[str] = []

    def submit_job(self, **what: Any) -> None:
        """Remember."""
        self.submitted.append(what)
        for module in what["runtime_env"].get("py_modules", ()):
            folder = Path(module)
            self.modules += [path.relative_to(folder.parent).as_posix() for path in folder.rglob("*")]

    def get_job_info(self, job_id: str) -> Any:
        """The next status."""
        status = self.statuses[0] if len(self.statuses) == 1 else self.statuses.pop(0)
        return SimpleNamespace(status=SimpleNamespace(value=status), message="it says so\nmore", driver_exit_code=2)

    def get_job_logs(self, job_id: str) -> str:
        """All of it."""
        return "".join(self.log)

    def stop_job(self, job_id: str) -> bool:
        """Remember."""
        self.stopped.append(job_id)
        return not self.statuses[0].startswith("SUCC")

    def list_jobs(self) -> list[Any]:
        """Two of one sweep, a third that was refused, and somebody else's."""
        told = {"sweep": "there", "recipe": "smoke", "directory": "/mnt/sweeps/there"}
        told["environment"] = '{"wheel": false, "pip": ["peft"]}'
        ended, runs = SimpleNamespace(value="FAILED"), SimpleNamespace(value=self.statuses[0])
        old, new, late = (
            SimpleNamespace(metadata=told, submission_id=name, start_time=n, status=ended if name == "d" else runs)
            for n, name in enumerate("abd")
        )
        return [new, late, old, SimpleNamespace(metadata=None, submission_id="c", start_time=9, status=runs)]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """From the beginning, and broken off as often as told."""
        yield self.log[0]
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError("WebSocket connection closed unexpectedly")
        for text in self.log[1:]:
            yield text


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """A cluster that answers; the working directory is empty."""
    fake = Server()
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda _: fake)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    return fake


def test_a_sweep_becomes_a_job(server: Server) -> None:
    """With its files, chronotune, its metadata, a gentle end, and the recipe as a node of the cluster runs it."""
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")
    [asked] = server.submitted
    assert json.loads(asked["metadata"].pop("environment"))["wheel"] is True
    assert json.loads(asked["metadata"].pop("configuration"))["budget"]["windows"] == 48
    assert asked["metadata"] | {"chronotune": ""} == {
        "job_name": "mine",
        "recipe": "smoke",
        "sweep": "mine",
        "directory": "/mnt/sweeps/mine",
        "chronotune": "",
    }
    variables = asked["runtime_env"]["env_vars"]
    assert variables["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    order = Order.read(variables[jobs.ORDER])
    assert order.sent == {"model": "model"}
    assert order.recipe is not None
    assert order.recipe["cluster"]["kind"] == "here"
    assert {"chronotune/driver.py", "chronotune/_shipped/tuning/smoke.yaml"} <= set(server.modules)
    assert jobs.find("mine") == jobs.find("sweeps/mine") == job
    assert job.id.startswith("mine-")


def test_a_name_that_runs_is_not_given_away(server: Server) -> None:
    """What is remembered of it is how it is found again; one that has ended gives way."""
    first = jobs.submit(_recipe(), "/mnt/sweeps/mine")
    with pytest.raises(InputError, match=f"one driver at a time, but job {first.id} runs"):
        jobs.submit(_recipe(), "/mnt/sweeps/mine")
    assert jobs.find("mine") == first
    server.statuses = ["FAILED"]
    assert jobs.submit(_recipe(), "/mnt/sweeps/mine").id != first.id


def test_a_lost_answer_is_no_lost_job(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for before the submission is called failed."""

    def breaks(**_: Any) -> None:
        raise ConnectionError("Remote end closed connection without response")

    monkeypatch.setattr(server, "submit_job", breaks)
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")
    assert jobs.find("mine") == job

    def unknown(_: str) -> None:
        raise RuntimeError("Job does not exist")

    monkeypatch.setattr(server, "get_job_info", unknown)
    with pytest.raises(ChronotuneError, match="dashboard must answer"):
        jobs.submit(_recipe(), "/mnt/sweeps/other")
    assert jobs.recall("other") is None


def test_no_token_is_written_anywhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither into what is remembered here nor into what is asked."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hush-hush-hush")
    jobs.submit(_recipe(), "/mnt/sweeps/mine")
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert written
    assert "hush" not in "".join(written) + repr(server.submitted)


def test_pip_and_variables_are_handed_on(tmp_path: Path) -> None:
    """As Ray wants them."""
    order = Order("/mnt/sweeps/a", None)
    pip = ClusterProfile(**_profile(environment={"pip": ["peft"], "wheel": False, "variables": {"HF_HOME": "/mnt/hf"}}))
    given = jobs.environment(pip, order, None, tmp_path)
    assert given["pip"] == ["peft"]
    assert given["env_vars"]["HF_HOME"] == "/mnt/hf"


def test_a_log_is_followed_across_a_broken_connection(server: Server) -> None:
    """Nothing is printed twice, nothing is left out."""
    server.breaks, server.statuses = 2, ["RUNNING", "RUNNING", "SUCCEEDED"]
    server.log.append("three\n")
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")
    printed: list[str] = []
    ended = jobs.follow(job, printed.append)
    assert "".join(printed) == "one\ntwo\nthree\n"
    assert ended.status == "SUCCEEDED"


def test_connections_may_break_off_hours_apart(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience begins anew whenever something came; with a cluster that is gone it ends."""
    hours = iter(range(0, 36_000_000, 3600))
    monkeypatch.setattr("time.monotonic", lambda: float(next(hours)))
    server.breaks, server.statuses = 3, ["SUCCEEDED"]
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")
    assert jobs.follow(job, lambda _: None).status == "SUCCEEDED"
    server.breaks, server.log = 9, [""]
    with pytest.raises(ChronotuneError, match="WebSocket connection closed"):
        jobs.follow(job, lambda _: None)


def test_the_cluster_is_not_blamed_for_what_fails_here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that goes away, as `head` does, and a disk that is full."""
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")

    def gone(_: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(BrokenPipeError):
        jobs.follow(job, gone)
    monkeypatch.setattr(package, "write", full)
    with pytest.raises(ChronotuneError, match=r"a job is gathered in \S+ and noted in sweeps/.jobs, but: .*No space"):
        jobs.submit(_recipe(), "/mnt/sweeps/other")


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 2), ("STOPPED", 130)])
def test_the_exit_code_is_the_drivers(server: Server, status: str, code: int) -> None:
    """Through the command line, with the log on the way."""
    server.statuses = [status]
    done = CliRunner().invoke(cli.app, ["run", "smoke", "--cluster", _written(), "--dir", "mine"])
    assert "one\ntwo\n" in done.output
    assert done.exit_code == code
    assert CliRunner().invoke(cli.app, ["attach", "mine"]).exit_code == code


def test_a_folder_on_the_cluster_is_only_named(server: Server) -> None:
    """It lies in cluster.sweeps there: another parent is refused, not dropped."""
    done = CliRunner().invoke(cli.app, ["run", "smoke", "--cluster", _written(), "--dir", "elsewhere/mine"])
    assert done.exit_code != 0
    assert "must be a name, but is elsewhere/mine" in str(done.exception)
    assert not server.submitted


def test_status_stop_and_resume_find_it_again(server: Server) -> None:
    """By name from this folder; a running one is not resumed."""
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")
    told = CliRunner().invoke(cli.app, ["status", "mine"]).output
    assert told.startswith(f"mine: running; job {job.id} at {ADDRESS}, sweep in /mnt/sweeps/mine\n")
    assert "  two" in told
    with pytest.raises(InputError, match=f"job {job.id} runs"):
        jobs.go_on(job)
    server.statuses = ["STOPPED"]
    assert "mine: stopped; go on with: chronotune resume mine" in CliRunner().invoke(cli.app, ["stop", "mine"]).output
    assert server.stopped == [job.id]
    CliRunner().invoke(cli.app, ["resume", "mine", "--trials", "+3"])
    order = Order.read(server.submitted[-1]["runtime_env"]["env_vars"][jobs.ORDER])
    assert order == Order("/mnt/sweeps/mine", None, more_trials=3)
    assert jobs.find("mine").id != job.id


def test_a_sweep_that_is_here_and_one_that_is_nowhere_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job drives what is in a folder here: it says what to do with it, and how to stop it while it runs."""
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "sweeps" / "own"
    here.mkdir(parents=True)
    new_study(here)
    for name in ("own", "sweeps/own"):
        assert "go on with: chronotune resume sweeps/own" in CliRunner().invoke(cli.app, ["status", name]).output
        for command in ("attach", "stop"):
            told = CliRunner().invoke(cli.app, [command, name])
            assert "this one is here. It does not run: chronotune show sweeps/own" in str(told.exception)
            assert "or, if it is a job of a cluster, name that with --cluster" in str(told.exception)
    for command in ("attach", "status", "stop"):
        nowhere = str(CliRunner().invoke(cli.app, [command, "nowhere"]).exception)
        assert "nowhere: no sweep of this name is known here" in nowhere
        assert "--cluster NAME" in nowhere
    with Lease(here):
        running = str(CliRunner().invoke(cli.app, ["stop", "own"]).exception)
    assert f"kill -INT {os.getpid()}; or, if it is a job of a cluster, name that with --cluster" in running


def test_a_cluster_that_does_not_answer_leaves_the_study(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its folder can be seen from here, that tells how the sweep is doing."""
    jobs.submit(_recipe(), str(tmp_path / "mine"))

    def away(_: str) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(server, "get_job_info", away)
    told = CliRunner().invoke(cli.app, ["status", "mine"])
    assert isinstance(told.exception, ChronotuneError)
    (tmp_path / "mine").mkdir()
    new_study(tmp_path / "mine")
    told = CliRunner().invoke(cli.app, ["status", "mine"])
    assert "dashboard must answer" in told.stderr
    assert "mine is here, and tells:" in told.stderr
    assert "go on with: chronotune resume" in told.stdout


def test_a_sweep_that_another_machine_drives_is_no_local_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On storage that both see its process is of no use here; once it gives no sign, the sweep does not run."""
    monkeypatch.chdir(tmp_path)
    far = tmp_path / "sweeps" / "far"
    far.mkdir(parents=True)
    new_study(far)
    for beat, says in ((time.time(), "no sweep of this name is known here"), (0.0, "It does not run")):
        there = {"host": "elsewhere", "pid": 4711, "boot": "b", "started": 1.0, "heartbeat": beat}
        (far / "lease.json").write_text(json.dumps(there))
        os.utime(far / "lease.json", (beat, beat))
        told = str(CliRunner().invoke(cli.app, ["stop", "sweeps/far"]).exception)
        assert says in told
        assert "--cluster" in told
        assert "4711" not in told


def test_another_machine_finds_it_on_the_cluster(server: Server) -> None:
    """The newest of its jobs; without an address there is nothing to ask. What was found is resumed from here too."""
    with pytest.raises(InputError, match="say on which cluster it runs"):
        jobs.find("there")
    assert jobs.find("there", ADDRESS).id == "b"
    assert jobs.find("there").id == "b"
    server.statuses = ["STOPPED"]
    CliRunner().invoke(cli.app, ["resume", "there"])
    [asked] = server.submitted
    assert asked["metadata"]["directory"] == "/mnt/sweeps/there"
    assert asked["runtime_env"]["pip"] == ["peft"]
    assert "py_modules" not in asked["runtime_env"]
    with pytest.raises(InputError, match="no job of this sweep"):
        jobs.find("elsewhere", ADDRESS)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (AuthenticationError("no"), InputError, "asks for its token, but RAY_AUTH_TOKEN"),
        (ConnectionError("refused"), ChronotuneError, "dashboard must answer"),
        (RuntimeError("Job mine does not exist"), InputError, "chronotune resume mine"),
        (RuntimeError("Request failed with status code 500: oh"), ChronotuneError, "status code 500"),
    ],
)
def test_answers_become_sentences(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], told: str
) -> None:
    """With what to do next."""
    job = jobs.submit(_recipe(), "/mnt/sweeps/mine")

    def fails(_: str) -> None:
        raise error

    monkeypatch.setattr(server, "get_job_info", fails)
    with pytest.raises(kind, match=told):
        jobs.state(job)


def test_rays_own_variables_do_not_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would prefer RAY_ADDRESS to the profile's address."""
    seen: list[str | None] = []
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")

    def client(_: str) -> Server:
        seen.append(os.environ.get("RAY_ADDRESS"))
        return Server()

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", client)
    with jobs._talking(ADDRESS):
        pass
    assert seen == [None]
    assert os.environ["RAY_ADDRESS"] == "http://elsewhere:8265"
    assert not ray.is_initialized()


def test_the_driver_tells_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the exit codes of the command line; it works beside the sweeps."""
    sweeps = tmp_path / "sweeps"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(jobs.ORDER, Order(str(sweeps / "mine"), None).text())
    raised: list[BaseException | None] = [InputError("no"), ChronotuneError("no"), KeyboardInterrupt(), None]

    def carry_out(*_: Any) -> None:
        assert Path.cwd() == sweeps
        if (error := raised[0]) is not None:
            raise error

    monkeypatch.setattr(driver, "carry_out", carry_out)
    codes = []
    while raised:
        codes.append(driver.main())
        raised.pop(0)
    assert codes == [2, 1, 130, 0]


def _written() -> str:
    Path("far.yaml").write_text(json.dumps(_profile()))
    return "far.yaml"
