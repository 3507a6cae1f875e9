"""How models/tiny is made: batches depend on seed and number alone, and a run that was cut short goes on unchanged."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TINY = Path(__file__).parents[1] / "models" / "tiny"
SETTINGS: dict[str, Any] = {"seed": 3, "budget_steps": 8, "rate": 1e-3, "tokens_per_step": 300}


@pytest.fixture
def prior(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """models/tiny/prior.py, which is no part of the package."""
    monkeypatch.syspath_prepend(TINY)
    return importlib.import_module("prior")


@pytest.fixture
def train(prior: ModuleType) -> ModuleType:
    """models/tiny/train.py."""
    return importlib.import_module("train")


def test_a_batch_depends_on_seed_and_number_alone(prior: ModuleType) -> None:
    """Whatever was drawn before."""
    first = prior.sample_batch(1, 5, 600)
    prior.sample_batch(1, 6, 600)
    again, other = prior.sample_batch(1, 5, 600), prior.sample_batch(2, 5, 600)
    assert np.array_equal(first["context"], again["context"], equal_nan=True)
    assert first["context"].shape != other["context"].shape or not np.array_equal(first["context"], other["context"])


def test_batches_are_what_the_model_takes(prior: ModuleType) -> None:
    """Every group has a target with a future to learn from; covariates are known ahead in whole or not at all."""
    for number in range(40):
        batch = prior.sample_batch(7, number, 1500)
        future, known, groups = batch["future_target"], batch["future_covariates"], batch["group_ids"]
        is_target = np.isfinite(future).any(axis=1)
        assert set(groups[is_target]) == set(groups)
        assert np.isfinite(future[is_target]).all()
        is_known = np.isfinite(known).any(axis=1)
        assert np.isfinite(known[is_known]).all()
        assert not (is_target & is_known).any()
        assert len(groups) == len(batch["context"]) == len(future) == len(known)
        assert np.nanmax(np.abs(batch["context"])) < 1e9


def test_the_prior_has_the_kinds_that_it_promises(prior: ModuleType) -> None:
    """Short and long contexts and horizons, lone series and groups, covariates known ahead and not, gaps."""
    batches = [prior.sample_batch(11, number, 1500) for number in range(120)]
    contexts = {batch["context"].shape[1] for batch in batches}
    assert min(contexts) <= 64
    assert max(contexts) >= 2016
    assert max(batch["future_target"].shape[1] for batch in batches) == 192
    sizes = np.concatenate([np.unique(batch["group_ids"], return_counts=True)[1] for batch in batches])
    assert {1, 2, 3} <= set(sizes)
    assert any(np.isnan(batch["context"]).any() for batch in batches)
    rows = [np.isfinite(batch["future_covariates"]).any(axis=1) for batch in batches]
    targets = [np.isfinite(batch["future_target"]).any(axis=1) for batch in batches]
    past_only = sum(int((~known & ~target).sum()) for known, target in zip(rows, targets, strict=True))
    assert past_only > 0
    assert sum(int(known.sum()) for known in rows) > 0


def test_a_clock_fits_its_context(prior: ModuleType) -> None:
    """Months are met in short contexts, quarters of an hour in long ones."""
    signals = importlib.import_module("signals")
    rng = np.random.default_rng(0)
    short = {signals.sample_clock(rng, 64, 12).day for _ in range(300)}
    long = [signals.sample_clock(rng, 2016, 96) for _ in range(300)]
    assert {7, 12, 24, 52} <= short
    assert {24, 48, 96} <= {clock.day for clock in long}
    assert sum(clock.day == 12 for clock in long) < 0.02 * len(long)


def test_a_run_cut_short_goes_on_unchanged(train: ModuleType, tmp_path: Path) -> None:
    """To the last bit: weights, optimizers, counts and the place in the stream of batches."""
    import torch

    def steps(run: Any, count: int) -> None:
        batches = train.stream(3, 300, first=run.steps)
        for _ in range(count):
            run.seconds += 6.0
            run.step(next(batches))

    unbroken, cut = train.Run(SETTINGS, 1.0), train.Run(SETTINGS, 1.0)
    steps(unbroken, 4)
    steps(cut, 2)
    cut.keep(tmp_path / "run" / "state.pt")
    resumed = train.Run(SETTINGS, 1.0)
    resumed.go_on(tmp_path / "run" / "state.pt")
    steps(resumed, 2)
    assert (resumed.steps, resumed.rows, resumed.seconds) == (unbroken.steps, unbroken.rows, unbroken.seconds)
    for ours, theirs in zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_run_is_not_continued(train: ModuleType, tmp_path: Path) -> None:
    """A state of other settings is refused with what it has."""
    train.Run(SETTINGS, 1.0).keep(tmp_path / "state.pt")
    with pytest.raises(SystemExit, match="must be of a run with these settings"):
        train.Run(SETTINGS | {"seed": 4}, 1.0).go_on(tmp_path / "state.pt")


def test_the_learning_rate_rises_stays_and_falls(train: ModuleType) -> None:
    """From 0 to its peak and back to 0 at the end of the budget."""
    shares = [
        train.rate_share(progress) for progress in (0.0, train.RISE / 2, train.RISE, 0.5, 1 - train.FALL / 2, 1.0)
    ]
    assert shares == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_the_nearer_budget_counts(train: ModuleType) -> None:
    """Steps or minutes, whichever is nearer to its end."""
    run = train.Run(SETTINGS, 1.0)
    run.steps, run.seconds = 2, 6.0
    assert run.progress == pytest.approx(0.25)
    run.seconds = 45.0
    assert run.progress == pytest.approx(0.75)


def test_every_parameter_is_trained_once(train: ModuleType) -> None:
    """By one of the two optimizers."""
    run = train.Run(SETTINGS, 1.0)
    trained = [id(p) for one in run.optimizers for group in one.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in run.model.parameters())
