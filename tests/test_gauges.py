"""What a sweep's driver tells Prometheus, from readings to the text on Ray's metrics port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chronotune import gauges
from chronotune.gauges import GAUGES, WINDOWS, Gauges, Pace, Work, standing
from chronotune.study import Reading, Study
from sweep_parts import ask, new_study, result


def _reading(tmp_path: Path) -> tuple[Study, Reading]:
    """Two trials: one complete at 27 windows, one running at 3; zero-shot scored 0.5."""
    tmp_path.mkdir(exist_ok=True)
    study = new_study(tmp_path)
    settings = [{"context_length": 48, "covariates": "none", "metrics": {"sql": value}} for value in (0.6, 0.5)]
    study.note("zero_shot", settings)
    for windows, objective in ((3, 0.45), (27, 0.4)):
        study.record(ask(study) if windows == 3 else 0, result(windows, objective))
    study.finish(0, full_budget=27)
    study.record(ask(study), result(3, 0.7))
    return study, study.read()


def test_standing_compares_the_best_complete_trial_with_zero_shot(tmp_path: Path) -> None:
    """Zero-shot in its best setting; nothing is said of what is not known."""
    study, reading = _reading(tmp_path / "a")
    assert dict(standing(reading)) == pytest.approx(
        {"chronotune_zero_shot_objective": 0.5, "chronotune_best_objective": 0.4, "chronotune_lift": 0.2}
    )
    (tmp_path / "b").mkdir()
    assert dict(standing(new_study(tmp_path / "b").read())) == {}
    assert Work.of(study.read()) == Work(windows=30, seconds=3.0)


def test_pace_is_taken_over_a_moving_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old work falls out of it; the busy share is of the slots, and never above one."""
    monkeypatch.setattr(gauges, "_PERIOD", 10.0)
    pace = Pace(Work(0, 0.0), now=0.0)
    assert pace.update(Work(100, 8.0), slots=2, now=5.0) == (20.0, 0.8)
    assert pace.update(Work(200, 18.0), slots=2, now=10.0) == (20.0, 0.9)
    assert pace.update(Work(200, 18.0), slots=2, now=16.0) == pytest.approx((100 / 11, 10 / 22))
    assert pace.update(Work(900, 99.0), slots=0, now=17.0)[1] == 1.0


class _Metric:
    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.values, self.tags = name, dict[Any, float](), tag_keys

    def set_default_tags(self, tags: dict[str, str]) -> None:
        assert set(tags) <= set(self.tags)

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.values[(tags or {}).get("state")] = value

    def inc(self, value: float) -> None:
        self.values[None] = self.values.get(None, 0) + value


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> dict[str, _Metric]:
    """Metrics that keep what they are told, in place of Ray's."""
    from ray.util import metrics as rays

    made: dict[str, _Metric] = {}

    def make(name: str, description: str, tag_keys: tuple[str, ...]) -> _Metric:
        return made.setdefault(name, _Metric(name, description, tag_keys))

    monkeypatch.setattr(rays, "Gauge", make)
    monkeypatch.setattr(rays, "Counter", make)
    return made


def test_all_gauges_are_set(tmp_path: Path, metrics: dict[str, _Metric]) -> None:
    """The counter counts only what came after the driver began; updates come at most once a second."""
    study, reading = _reading(tmp_path)
    mine = Gauges("mine", reading, lambda: 2, lambda: 1)
    study.record(1, result(9, 0.6))
    mine.update(study.read())
    assert set(metrics) == {*GAUGES, WINDOWS}
    assert metrics["chronotune_trials"].values == {"running": 1, "complete": 1, "pruned": 0, "failed": 0}
    assert metrics["chronotune_mirror_backlog"].values == {None: 3}
    assert metrics[WINDOWS].values == {None: 6}
    study.fail(1, "it broke")
    mine.update(study.read())
    assert metrics["chronotune_trials"].values["failed"] == 0
    mine.update(study.read(), now=True)
    assert metrics["chronotune_trials"].values["failed"] == 1


def test_what_is_wrong_with_metrics_never_ends_a_sweep(
    tmp_path: Path, metrics: dict[str, _Metric], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once."""

    def broken() -> int:
        raise OSError("no agent")

    reading = _reading(tmp_path)[1]
    mine = Gauges("mine", reading, broken, lambda: None)
    mine.update(reading, now=True)
    mine.update(reading, now=True)
    assert len(caplog.records) == 1
    assert "no longer exported" in caplog.text
    assert metrics["chronotune_busy_share"].values == {}


_SESSION = """
import os, sys, time, urllib.request
import ray
from pathlib import Path
from chronotune.cluster import connected
from chronotune.config.cluster import ClusterProfile
from chronotune.gauges import Gauges
from chronotune.study import Reader

reading = Reader(Path(sys.argv[1])).read()
with connected(ClusterProfile(name="here")):
    assert os.environ["RAY_AUTH_MODE"] == "token", "Ray's default for a session of its own"
    Gauges("mine", reading, lambda: 2, lambda: 0).update(reading)
    [node] = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    for _ in range(60):
        time.sleep(1)
        try:
            text = urllib.request.urlopen(address, timeout=5).read().decode()
        except OSError:
            continue
        if text.count("ray_chronotune_trials{") == 4:
            break
    print("\\n".join(line for line in text.splitlines() if line.startswith("ray_chronotune")))
"""


def test_the_metrics_port_tells_them(tmp_path: Path) -> None:
    """Of a real session, as Prometheus would fetch them: every gauge of ours, with the sweep's name."""
    pytest.importorskip("opencensus", reason="Ray exports metrics with ray[default]: the extra dashboard")
    _reading(tmp_path)
    script = tmp_path / "session.py"
    script.write_text(_SESSION)
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        env={**os.environ, "RAY_metrics_report_interval_ms": "500"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = {re.split(r"[{ ]", line)[0]: line for line in done.stdout.splitlines()}
    assert set(told) == {f"ray_{name}" for name in GAUGES}, done.stdout
    assert all('sweep="mine"' in line for line in told.values())
    assert float(told["ray_chronotune_lift"].rsplit(" ", 1)[1]) == pytest.approx(0.2)
    assert done.stdout.count("ray_chronotune_trials{") == 4
