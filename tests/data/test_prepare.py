"""From a recipe to what a trial may see."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_parts import PLANT, SOLAR, STEEL, hourly, recipe_of

from chronotune.baselines import seasonal_naive
from chronotune.config.load import load_recipe
from chronotune.data.describe import describe
from chronotune.data.panel import TrialData, Window
from chronotune.data.prepare import Dataset, load, prepare, scored_windows, trial_data
from chronotune.data.sources import read
from chronotune.data.windows import actuals, windows_at
from chronotune.errors import InputError

DATA = {**PLANT, "past_only": ["wind"], "known_future": ["hour", "shift"]}
RECIPE = recipe_of(DATA)


def arrays(data: TrialData) -> list[np.ndarray[Any, Any]]:
    """Everything numeric that a trial receives."""
    return [data.scales, *(part for s in data.panel.series for part in (s.target, s.covariates))]


def assert_equal(one: TrialData, other: TrialData) -> None:
    """To the last bit."""
    assert (one.train_end, one.validation, one.horizon) == (other.train_end, other.validation, other.horizon)
    assert one.panel.encodings == other.panel.encodings
    assert pickle.dumps(one) == pickle.dumps(other)
    for left, right in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(left, right)


def with_another_future(frame: pl.DataFrame, row: int, seed: int = 1) -> pl.DataFrame:
    """Every value from this row on replaced: numbers drawn anew, texts by one that was never there."""
    rng, future = np.random.default_rng(seed), pl.int_range(pl.len()) >= row
    columns = [name for name, dtype in frame.schema.items() if not dtype.is_temporal()]
    news = {
        name: pl.lit("never seen") if frame[name].dtype == pl.String else pl.Series(rng.normal(99, 50, frame.height))
        for name in columns
    }
    return frame.with_columns(pl.when(future).then(new).otherwise(name).alias(name) for name, new in news.items())


def test_nothing_of_the_test_segment_reaches_a_trial() -> None:
    """Other values there change the dataset, but not one bit of what a trial receives."""
    dataset = prepare(hourly(), RECIPE)
    changed = prepare(with_another_future(hourly(), dataset.split.test_start), RECIPE)
    assert changed.fingerprint != dataset.fingerprint
    assert_equal(trial_data(changed, RECIPE), trial_data(dataset, RECIPE))


def test_nothing_of_the_test_segment_of_steel_reaches_a_trial(steel_csv: Path) -> None:
    """The same on real data with three encoded columns."""
    recipe = recipe_of({**STEEL, "path": str(steel_csv)}, horizon=96)
    frame = read(recipe.data)
    changed = prepare(with_another_future(frame, 28_032), recipe)
    assert_equal(trial_data(changed, recipe), trial_data(prepare(frame, recipe), recipe))


def test_encodings_and_scales_come_from_training_alone() -> None:
    """Other values in the validation segment change neither."""
    dataset = prepare(hourly(), RECIPE)
    changed = prepare(with_another_future(hourly(), dataset.split.train_end), RECIPE)
    assert changed.panel.encodings == dataset.panel.encodings
    np.testing.assert_array_equal(trial_data(changed, RECIPE).scales, trial_data(dataset, RECIPE).scales)


def test_trial_data_are_copies_without_the_test_segment() -> None:
    """No view keeps it alive: the arrays own exactly what is visible."""
    dataset = prepare(hourly(), RECIPE)
    data = trial_data(dataset, RECIPE)
    (seen,), (whole,) = data.panel.series, dataset.panel.series
    assert len(seen) == data.panel.end == dataset.split.test_start
    assert not np.shares_memory(seen.target, whole.target)
    assert not np.shares_memory(seen.covariates, whole.covariates)
    assert isinstance(seen.target.base, np.ndarray)
    assert seen.target.base.shape == (4, len(seen))
    assert seen.target.base.base is None
    assert {array.dtype for array in arrays(data)[1:]} == {np.dtype(np.float32)}
    assert seen.target.flags.c_contiguous
    assert seen.covariates.flags.c_contiguous
    assert max(w.origin for w in data.validation) + data.horizon <= len(seen)


def test_panel_with_series_of_different_lengths() -> None:
    """Series that end early or begin late take part where they have values; all of them keep their number."""
    frames = {"all": hourly(), "ends": hourly(seed=1)[:330], "begins": hourly(seed=2)[400:]}
    frame = pl.concat([part.with_columns(site=pl.lit(name)) for name, part in frames.items()])
    recipe = recipe_of({**DATA, "id": "site"})
    dataset = prepare(frame, recipe)
    assert (dataset.split.train_end, dataset.split.test_start, dataset.split.end) == (312, 384, 480)
    data = trial_data(dataset, recipe)
    assert [len(s) for s in data.panel.series] == [384, 330, 0]
    assert data.validation == (Window(0, 312), Window(1, 312), Window(0, 336), Window(0, 360))
    assert data.scales.shape == (3,)
    assert (data.scales[:2] > 0).all()
    test = windows_at(dataset.panel, dataset.split.test_origins, recipe.horizon)
    assert [w.origin for w in test if w.series == 0] == [384, 408, 432, 456]
    assert [w.origin for w in test if w.series == 2] == [8, 32, 56]
    assert len(test) == 7


def test_series_without_a_training_scale_are_not_scored() -> None:
    """One that begins after training, or has one value there, is in no validation or test window, and named."""
    late = hourly(seed=2).filter(pl.col("time") >= hourly()["time"][320])
    one = hourly(seed=3)[311:]
    parts = {"all": hourly(), "late": late, "one": one}
    frame = pl.concat([part.with_columns(site=pl.lit(name)) for name, part in parts.items()])
    recipe = recipe_of({**DATA, "id": "site"})
    dataset = prepare(frame, recipe)
    data = trial_data(dataset, recipe)
    assert np.isnan(data.scales).tolist() == [False, True, True]
    assert {w.series for w in windows_at(data.panel, dataset.split.validation_origins, 24)} == {0, 1, 2}
    assert {w.series for w in data.validation} == {0}
    assert {w.series for w in scored_windows(dataset.panel, dataset.split.test_origins, data.scales, 24)} == {0}
    short, unscored = dataset.report.lines("warning")
    assert "2 series have fewer (series late, one). They are not trained on" in short
    assert unscored == (
        "plant.csv: load: should have values in training, but no two are there that are a step or 24 steps apart "
        "(series late, one). Without a scale for its errors it is neither validated nor tested on"
    )


def test_without_any_scored_window_nothing_starts() -> None:
    """The one series with a scale ends before validation, so nothing could be compared."""
    parts = {"ends": hourly()[:312], "late": hourly(seed=2)[320:]}
    frame = pl.concat([part.with_columns(site=pl.lit(name)) for name, part in parts.items()])
    with pytest.raises(InputError, match="must have values at a validation origin"):
        prepare(frame, recipe_of({**DATA, "id": "site"}))


def test_constant_training_is_told_truly() -> None:
    """The scale of a series that begins to vary after training is its level, and that is said."""
    varying = pl.int_range(pl.len()) >= 312
    frame = hourly().with_columns(load=pl.when(varying).then("load").otherwise(4.0))
    dataset = prepare(frame, RECIPE)
    assert trial_data(dataset, RECIPE).scales.tolist() == [4.0]
    assert any(
        "is constant there. MASE and SQL are scaled by its mean absolute" in w for w in dataset.report.lines("warning")
    )


def test_filled_gaps() -> None:
    """Missing steps are NaN in every row, and later values stay at their time."""
    frame = hourly()
    recipe = recipe_of({**DATA, "fill_gaps": True})
    (series,) = prepare(pl.concat([frame[:50], frame[53:]]), recipe).panel.series
    assert len(series) == 480
    assert np.isnan(series.target).nonzero()[0].tolist() == [50, 51, 52]
    assert np.isnan(series.covariates[:, 50:53]).all()
    assert series.target[53] == np.float32(frame["load"][53])


def test_fingerprint() -> None:
    """It follows values, times and names, and nothing else."""

    def of(frame: pl.DataFrame, **changes: Any) -> str:
        return prepare(frame, recipe_of(DATA, **changes)).fingerprint

    frame = hourly()
    assert of(frame) == of(frame.clone(), context=96)
    shifted = frame.with_columns(pl.col("time").dt.offset_by("1h"))
    other = frame.with_columns(wind=pl.col("wind") + 1)
    assert len({of(frame), of(shifted), of(other), of(frame[1:])}) == 4
    assert len(of(frame)) == 64


def test_periodic_target_is_a_warning() -> None:
    """Its seasonal naive is exact, so another scale is used, and that is said."""
    frame = hourly().with_columns(load=pl.col("hour"))
    dataset = prepare(frame, recipe_of({**DATA, "known_future": ["shift"]}))
    assert dataset.report.lines("warning") == [
        "plant.csv: load: should differ from its value 24 steps before somewhere in training, but does not. "
        "MASE and SQL are scaled by its mean change from step to step instead"
    ]
    assert trial_data(dataset, RECIPE).scales[0] > 0


def test_solar_day_naive() -> None:
    """Repeating the last day has the known error on the last fifth."""
    dataset = load(recipe_of(SOLAR))
    windows = windows_at(dataset.panel, dataset.split.test_origins, 24)
    naive = seasonal_naive(dataset.panel, windows, horizon=24, season=24)[:, 4]
    assert np.abs(naive - actuals(dataset.panel, windows, 24)).mean() == pytest.approx(34.8, abs=0.05)


def described(dataset: Dataset) -> dict[str, Any]:
    """The facts that `check` shows."""
    return describe(dataset, RECIPE)


def test_description() -> None:
    """Counts, times and the split, as plain values."""
    facts = described(prepare(hourly(), RECIPE))
    assert facts["step"] == "1 hour"
    assert (facts["rows"], facts["series"], facts["missing_targets"]) == (480, 1, 0)
    assert facts["validation_start"] == "2024-01-14T00:00:00"
    assert facts["test_start"] == "2024-01-17T00:00:00"
    assert facts["end"] == "2024-01-21T00:00:00"
    assert (facts["validation_origins"], facts["test_origins"]) == (3, 4)
    assert facts["encoded"] == ["shift"]
    assert facts["warnings"] == []


def test_description_does_not_open_the_test_segment() -> None:
    """Other values there change no fact but the fingerprint."""
    dataset = prepare(hourly(), RECIPE)
    changed = described(prepare(with_another_future(hourly(), dataset.split.test_start), RECIPE))
    assert {**changed, "fingerprint": ""} == {**described(dataset), "fingerprint": ""}


def test_steel_is_in_time_order(steel_csv: Path) -> None:
    """The last value explains the next one on the validation segment; on shuffled rows it would not."""
    recipe = recipe_of({**STEEL, "path": str(steel_csv)}, horizon=96)
    frame = read(recipe.data)
    assert describe(prepare(frame, recipe), recipe)["last_value_r2"] > 0.8
    shuffled = frame.with_columns(pl.col("Usage_kWh").shuffle(seed=0))
    assert describe(prepare(shuffled, recipe), recipe)["last_value_r2"] < -0.9


def test_too_few_validation_origins_are_a_warning() -> None:
    """Rungs judged on a handful are judged by luck; the default of 24 is enough."""
    few = load(load_recipe("smoke")).report.lines("warning")
    assert any("should give 12 validation origins or more" in line and "but gives 4" in line for line in few)
    assert load(load_recipe("quickstart")).report.lines("warning") == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["split.test=0.0275"], []),
        (["split.test=0.026"], ["should give 10 days with a test origin or more", "but gives 9. Raise split.test"]),
        (["split.test=0.052", "horizon=48", "split.stride=24"], ["should give 20 days", "but gives 17."]),
    ],
)
def test_too_few_test_origins_are_a_warning(changes: list[str], told: list[str]) -> None:
    """A sweep that can only end without a verdict is told before; forecasts that overlap count less."""
    lines = load(load_recipe("quickstart", changes)).report.lines("warning")
    assert len(lines) == (1 if told else 0)
    assert all(part in lines[0] for part in told)
