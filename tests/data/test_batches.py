"""The plan of steps, the draws and the arrays of a training batch."""

from itertools import pairwise

import numpy as np
import pytest

from chronotune.data.batches import check_context, collate, draw_windows, step_size, trainable_series
from chronotune.data.panel import Window
from chronotune.errors import ChronotuneError
from engine_parts import HORIZON, PAST_ONLY, TRAIN_END, small_panel


def plan(batch: int, rungs: tuple[int, ...]) -> list[int]:
    """Sizes of all steps."""
    sizes: list[int] = []
    while sum(sizes) < rungs[-1]:
        sizes.append(step_size(sum(sizes), batch, rungs))
    return sizes


def test_every_rung_is_reached_exactly() -> None:
    """Only the last step before a rung is cut."""
    assert plan(4, (10, 30)) == [4, 4, 2, 4, 4, 4, 4, 4]
    assert plan(16, (8, 24, 25)) == [8, 16, 1]


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
@pytest.mark.parametrize("rungs", [(5,), (5, 15, 45), (1, 2, 3)])
def test_any_plan_hits_all_rungs(batch: int, rungs: tuple[int, ...]) -> None:
    """Every rung is the end of a step, and no step is larger than the batch or empty."""
    sizes = plan(batch, rungs)
    assert set(rungs) <= set(np.cumsum(sizes).tolist())
    assert all(0 < size <= batch for size in sizes)


def test_draws_depend_on_seed_and_step_alone() -> None:
    """The global generator is neither read nor moved."""
    panel = small_panel().until(TRAIN_END)
    arguments = {"seed": 5, "step": 9, "size": 6}
    first = draw_windows(panel, (0, 1), HORIZON, **arguments)
    np.random.seed(123)  # noqa: NPY002  # the point of the test
    assert draw_windows(panel, (0, 1), HORIZON, **arguments) == first
    assert draw_windows(panel, (0, 1), HORIZON, **(arguments | {"step": 10})) != first
    assert draw_windows(panel, (0, 1), HORIZON, **(arguments | {"seed": 6})) != first


def test_draws_cover_the_training_segment_and_no_more() -> None:
    """Every series that is long enough, every origin from the first allowed to the last, uniformly."""
    panel = small_panel().until(TRAIN_END)
    candidates = trainable_series(panel, HORIZON)
    assert candidates == (0, 1)  # the third series has only 30 steps by then
    windows = draw_windows(panel, candidates, HORIZON, seed=0, step=0, size=20_000)
    for number in candidates:
        origins = [window.origin for window in windows if window.series == number]
        assert (min(origins), max(origins)) == (HORIZON, len(panel.series[number]) - HORIZON)
        assert len(origins) == pytest.approx(10_000, rel=0.05)
        middle = (min(origins) + max(origins)) / 2
        assert np.mean(origins) == pytest.approx(middle, rel=0.03)


def test_too_short_to_train() -> None:
    """Names the rule and the longest series."""
    with pytest.raises(ChronotuneError, match=r"at least 400 steps .* longest has 260"):
        trainable_series(small_panel().until(TRAIN_END), 200)


def test_collate() -> None:
    """Rows in the order target, past-only, known-future; padded on the left; covariates carry no targets."""
    panel = small_panel()
    batch = collate(panel, [Window(0, 100), Window(1, 30)], 64, HORIZON)
    assert batch.context.shape == (10, 64)
    assert batch.group_ids.tolist() == [0] * 5 + [1] * 5
    for first, (number, origin, past) in ((0, (0, 100, 64)), (5, (1, 30, 30))):
        series, future = panel.series[number], slice(origin, origin + HORIZON)
        np.testing.assert_array_equal(batch.context[first, -past:], series.target[origin - past : origin])
        np.testing.assert_array_equal(
            batch.context[first + 1 : first + 5, -past:], series.covariates[:, origin - past : origin]
        )
        assert np.isnan(batch.context[first : first + 5, : 64 - past]).all()
        np.testing.assert_array_equal(batch.future_target[first], series.target[future])
        assert np.isnan(batch.future_target[first + 1 : first + 5]).all()
        np.testing.assert_array_equal(batch.future_covariates[first + 3 : first + 5], series.covariates[2:, future])
        assert np.isnan(batch.future_covariates[first : first + 3]).all()


@pytest.mark.parametrize(("columns", "rows"), [((), 1), (PAST_ONLY, 3)])
def test_collate_without_known_covariates(columns: tuple[str, ...], rows: int) -> None:
    """Without known-future covariates nothing of the future is shown; the context is as short as the longest."""
    batch = collate(small_panel().select(columns), [Window(0, 25), Window(1, 30)], 64, HORIZON)
    assert batch.context.shape == (2 * rows, 30)
    assert np.isnan(batch.future_covariates).all()


def test_collate_copies() -> None:
    """A batch does not change the panel when it is written to."""
    panel = small_panel().select(())
    before = panel.series[0].target.copy()
    collate(panel, [Window(0, 100)], 64, HORIZON).context[:] = 0
    np.testing.assert_array_equal(panel.series[0].target, before)


def test_check_context() -> None:
    """The limit itself is allowed."""
    check_context(128, 128)
    with pytest.raises(ChronotuneError, match="must not exceed the 128 steps"):
        check_context(129, 128)


def test_steps_have_different_windows() -> None:
    """No two consecutive steps see the same windows."""
    panel = small_panel().until(TRAIN_END)
    steps = [draw_windows(panel, (0, 1), HORIZON, seed=1, step=step, size=4) for step in range(50)]
    assert all(one != other for one, other in pairwise(steps))
