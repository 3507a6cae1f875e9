"""Forecasts for a user: what is refused before any weights are read, and what is said beside a forecast."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import chronotune
from chronotune import forecaster, serving
from chronotune.config.load import dump
from chronotune.config.model import Encoding, ModelPreset, Serving
from chronotune.data.panel import Panel, Window
from chronotune.data.sources import solar
from chronotune.errors import InputError
from chronotune.metrics import QUANTILES
from sweep_parts import judged_sweep

COLUMNS = chronotune.Columns(time="time", target="load", past_only=("wind",))


def a_day() -> pl.DataFrame:
    """24 hours of numbers."""
    times = [f"2024-01-01 {hour:02}:00" for hour in range(24)]
    return pl.DataFrame(
        {"time": times, "load": [float(h % 7) for h in range(24)], "wind": [1.0 + h for h in range(24)]}
    )


def with_cell(column: str, value: Any) -> pl.DataFrame:
    """The day as text, with another value in its row 5."""
    text = a_day().with_columns(pl.col("load", "wind").cast(pl.String))
    cells = text[column].to_list()
    cells[4] = value
    return text.with_columns(pl.Series(column, cells))


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    """A preset whose weights do not exist."""
    path = tmp_path / "none.yaml"
    path.write_text("name: none\nweights: /nowhere\n")
    return path


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A preset tuned on hours of a panel, four steps ahead, with a plan of shifts that is known in advance."""
    shifts = Encoding(values={"day": 3.0, "night": 1.0}, unseen=2.0)
    fed = Serving(
        horizon=4, context_length=24, step=timedelta(hours=1), time="time", target="load", id="site",
        known_future=["shift"], encodings={"shift": shifts},
    )  # fmt: skip
    path = tmp_path / "plant.yaml"
    path.write_text(dump(ModelPreset(name="plant", weights="/nowhere", serving=fed)))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Panel, Sequence[Window], dict[str, Any]]]:
    """What the model is asked; its forecast is the step's number plus the level."""
    calls: list[tuple[Panel, Sequence[Window], dict[str, Any]]] = []

    def predict(_: Any, panel: Panel, windows: Sequence[Window], **how: Any) -> Any:
        calls.append((panel, windows, how))
        steps = np.arange(how["horizon"], dtype=np.float32)
        return np.tile(steps + np.array(QUANTILES, dtype=np.float32)[:, None], (len(windows), 1, 1))

    monkeypatch.setattr(forecaster, "load_model", lambda preset: SimpleNamespace(to=lambda device: None))
    monkeypatch.setattr(forecaster, "predict_windows", predict)
    return calls


def plant(known: int = 4) -> pl.DataFrame:
    """Two sites of 24 hours, and so many hours of their known future."""
    hours = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 3), "1h", eager=True).alias("time")
    site = pl.DataFrame({"time": hours.head(24 + known)}).with_columns(
        load=pl.when(pl.int_range(pl.len()) < 24).then(pl.int_range(pl.len()) % 7.0),
        shift=pl.when(pl.col("time").dt.hour() < 8).then(pl.lit("night")).otherwise(pl.lit("day")),
    )
    return pl.concat([site.with_columns(site=pl.lit(name)) for name in ("north", "south")])


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("load", "broken", "data row 5: load: must be numbers, but 1 row is not, the first 'broken'"),
        ("wind", "calm", "data row 5: wind: must be numbers"),
        ("load", "inf", "data row 5: load: must be finite, but 1 row is infinite"),
        ("wind", "-inf", "data row 5: wind: must be finite"),
    ],
)
def test_values_are_checked_as_in_training(preset: Path, column: str, value: str, words: str) -> None:
    """Text among numbers and infinities are the user's to mend, with their rows."""
    with pytest.raises(InputError, match=words):
        chronotune.forecast(preset, with_cell(column, value), 4, columns=COLUMNS)


def test_a_covariate_of_nothing_but_text_is_refused(preset: Path) -> None:
    """The model was not trained with categories there, so there is no number for them."""
    frame = a_day().with_columns(wind=pl.lit("strong"))
    with pytest.raises(InputError, match="wind: must be numbers, but 24 rows are not"):
        chronotune.forecast(preset, frame, 4, columns=COLUMNS)


def quarters(frame: pl.DataFrame) -> pl.DataFrame:
    """The same values, a quarter of an hour apart."""
    step = pl.int_range(pl.len()).over("site")
    return frame.with_columns(time=pl.datetime(2024, 1, 1) + pl.duration(minutes=15 * step))


def without_hours(frame: pl.DataFrame, hours: Sequence[int]) -> pl.DataFrame:
    """Without some hours of the first day, at both sites."""
    return frame.filter((pl.col("time").dt.day() != 1) | ~pl.col("time").dt.hour().is_in(list(hours)))


ERRORS: dict[str, tuple[Callable[[], pl.DataFrame], str]] = {
    "a gap": (
        lambda: without_hours(plant(), [5, 6]),
        "data rows 6, 32: time: must advance by 1 hour, but 4 steps are missing before 2 rows (series north, south). "
        "Add them, or give --fill-gaps (fill_gaps=True in Python) to insert rows of missing values",
    ),
    "no column of the known future": (
        lambda: plant().drop("shift"),
        "data: shift: is known in advance and must cover the forecast from 2024-01-02 00:00:00 to "
        "2024-01-02 03:00:00, but there is no such column. Add it, with rows for that time behind the last target",
    ),
    "a known future that ends too early": (
        lambda: plant(known=2),
        "north: shift: is known in advance and must cover all 4 steps of the forecast, but 2 values between "
        "2024-01-02 02:00:00 and 2024-01-02 03:00:00 are missing. Add rows with it after the last target\n"
        "south: shift: is known in advance and must cover all 4 steps of the forecast, but 2 values between "
        "2024-01-02 02:00:00 and 2024-01-02 03:00:00 are missing. Add rows with it after the last target",
    ),
    "a target of another name": (
        lambda: plant().rename({"load": "Load_kWh"}),
        "data: load: plant was tuned with 'load' as its target, but the file has time, Load_kWh, shift, site. "
        "Did you mean 'Load_kWh'? Rename it to load",
    ),
    "another frequency": (
        lambda: quarters(plant()),
        "data: time: must advance by 1 hour, the step that the model was tuned on, but it does by 15 minutes. "
        "Resample the file to 1 hour, or tune a model on steps of 15 minutes",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_the_model_is_refused(name: str, tuned: Path) -> None:
    """Word for word, and before any weights are read."""
    frame, message = ERRORS[name]
    with pytest.raises(InputError) as caught:
        chronotune.forecast(tuned, frame())
    assert str(caught.value) == message


def test_a_series_that_is_not_there_is_refused(tuned: Path, preset: Path) -> None:
    """Whoever asks for it by its id is told what is there; without an id column there is nothing to ask for."""
    with pytest.raises(InputError, match=r"data: --series: .* column site has no 'nort'\. Did you mean north\?"):
        chronotune.forecast(tuned, plant(), series=["nort"])
    with pytest.raises(InputError, match="it has none, and north is asked for"):
        chronotune.forecast(preset, a_day(), 4, columns=COLUMNS, series=["north"])


def test_a_series_that_training_did_not_hold_is_forecast(tuned: Path, asked: list[Any]) -> None:
    """It is a foundation model: only a category that has no number is told, and counts as the mean."""
    new = plant().with_columns(site=pl.lit("west"), shift=pl.lit("late")).unique("time", maintain_order=True)
    forecast = chronotune.forecast(tuned, new)
    assert forecast["site"].unique().to_list() == ["west"]
    [(panel, _, _)] = asked
    assert set(panel.series[0].covariates[0].tolist()) == {2.0}


def test_one_series_of_a_panel(tuned: Path, asked: list[Any], tmp_path: Path) -> None:
    """Quantiles by time from the end of its target, also as a file of either kind."""
    frame = chronotune.forecast(tuned, plant(), series=["south"])
    assert frame.columns == ["site", "time", "forecast", *(f"{level:g}" for level in QUANTILES)]
    assert frame["site"].unique().to_list() == ["south"]
    assert frame["time"].to_list() == plant()["time"][24:28].to_list()
    assert frame["forecast"].to_list() == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert asked[0][2]["context_length"] == 24
    for name in ("deep/forecast.parquet", "forecast.csv"):
        for _ in range(2):  # the second replaces the first
            serving.write(frame, tmp_path / name)
    assert pl.read_parquet(tmp_path / "deep/forecast.parquet").equals(frame)
    assert pl.read_csv(tmp_path / "forecast.csv", try_parse_dates=True)["time"].to_list() == frame["time"].to_list()
    assert not list(tmp_path.glob("**/.*.partial"))
    with pytest.raises(InputError, match=r"--out: must end in \.csv"):
        serving.write(frame, tmp_path / "forecast.xlsx")


def test_gaps_are_filled_when_asked(tuned: Path, asked: list[Any]) -> None:
    """As missing values, which the model masks."""
    chronotune.forecast(tuned, without_hours(plant(), [5]), fill_gaps=True)
    [(panel, windows, _)] = asked
    assert [np.isnan(series.target[:24]).sum() for series in panel.series] == [1, 1]
    assert [window.origin for window in windows] == [24, 24]


def test_a_short_history_and_a_long_horizon_are_warnings(
    tuned: Path, asked: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What the model was not tuned for is told once, and done; categories without a number too."""
    short = plant(known=6).filter(pl.col("time") >= pl.datetime(2024, 1, 1, 12))
    with caplog.at_level(logging.WARNING):
        chronotune.forecast(tuned, short.with_columns(shift=pl.lit("late")), 6)
    assert [record.message for record in caplog.records] == [
        "plant was tuned for 4 steps, and 6 are forecast",
        "plant was tuned to see 24 steps of the past, but the history of 2 of 2 series is shorter (north, south; the "
        "shortest has 12): expect larger errors than in its evaluation",
        "shift: training held no late; each is taken as the overall mean",
    ]


def test_a_tuned_model_is_fed_as_it_was_trained(tuned: Path) -> None:
    """Other columns or another context are refused, not ignored."""
    with pytest.raises(InputError, match="plant: a tuned model is fed as it was trained"):
        chronotune.forecast(tuned, plant(), columns=COLUMNS)
    with pytest.raises(InputError, match="plant: a tuned model is fed as it was trained"):
        chronotune.forecast(tuned, plant(), context_length=48)


def test_a_sweep_without_a_winner_is_no_model(tmp_path: Path) -> None:
    """Its folder stands for its winner."""
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(InputError, match="only a sweep with a winner is a model"):
        serving.winner_in(tmp_path)
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "preset.yaml").touch()
    assert serving.winner_in(tmp_path) == tmp_path / "winner"
    assert serving.winner_in(tmp_path / "winner") == tmp_path / "winner"
    assert serving.winner_in("tiny") == "tiny"


@pytest.mark.parametrize("decision", ["ship the challenger", "keep zero-shot"])
def test_a_sweep_stands_for_its_winner(
    decision: str, tmp_path: Path, asked: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is used whatever its verdict, which is told when it is not to ship it."""
    sweep = judged_sweep(tmp_path / "one", decision)
    hours = solar().head(200 + 24).with_columns(ghi=pl.when(pl.int_range(pl.len()) < 200).then("ghi"))
    with caplog.at_level(logging.WARNING):
        assert chronotune.forecast(sweep, hours).height == 24
    told = [record.message for record in caplog.records]
    kept = f"{sweep}: its winner is used, although the verdict is to keep zero-shot: so they say"
    assert told == ([] if decision == "ship the challenger" else [kept])
    preset = (sweep / "winner/preset.yaml").read_text()
    (sweep / "winner/preset.yaml").write_text(re.sub("revision: .*", f"revision: {'b' * 64}", preset, count=1))
    caplog.clear()
    chronotune.forecast(sweep, hours)
    assert "although winner/ holds other weights than the study names" in caplog.text
