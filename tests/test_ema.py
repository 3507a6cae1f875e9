"""The moving average of a training run's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from chronotune import checkpoint
from chronotune.ema import REACH, Ema
from engine_parts import small_tuner

BUDGET = 16
"""Windows of a small tuner's schedule."""


def parameters() -> dict[str, nn.Parameter]:
    """Two, of different shapes."""
    return {"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(3, 1))}


def test_the_mean_reaches_back_over_a_share_of_the_steps() -> None:
    """At the peak rate: of a weight that grows by 1 a step it is that share of the steps behind."""
    own = parameters()
    ema = Ema(own)
    with ema.training(nn.Identity()):
        for step in range(1, 2001):
            own["a"].data += 1
            ema.add(step, left=1.0)
    behind = ema.held["a"] - own["a"].detach()
    assert behind.numpy() == pytest.approx(2000 * REACH / (1 + REACH), rel=1e-3)
    assert not own["b"].any()


def test_when_the_rate_has_fallen_the_mean_is_the_weights() -> None:
    """To the last bit, whatever it was before."""
    own = parameters()
    ema = Ema(own)
    with ema.training(nn.Identity()):
        for step, left in ((1, 0.9), (2, 0.5), (3, 0.0)):
            own["a"].data += torch.rand(2)
            ema.add(step, left)
    assert own["a"].any()
    assert torch.equal(ema.held["a"], own["a"].detach())


def test_the_model_has_the_weights_in_training_and_else_the_mean() -> None:
    """Also after an error; parameters stay the objects that an optimizer knows."""
    own, model = parameters(), nn.Identity().eval()
    ema = Ema(own)
    known = own["a"]

    def diverge() -> None:
        with ema.training(model):
            assert model.training
            own["a"].data += 1
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        diverge()
    assert not model.training
    assert not own["a"].any()
    with ema.training(model):
        assert own["a"] is known
        assert own["a"].all()
    with pytest.raises(KeyError):
        ema.load({"a": torch.ones(2)})


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_run_is_scored_saved_and_exported_with_its_mean(mode: str, tmp_path: Path) -> None:
    """As computed by hand from the weights after each step, which a checkpoint has beside it."""
    tuner, mean = small_tuner(mode=mode), {}
    mean = {name: parameter.detach().double() for name, parameter in tuner._trainable.parameters.items()}
    while tuner.windows_seen < 12:
        tuner.advance(tuner.windows_seen + 1)
        share = 1 / (1 + REACH * tuner.steps * (1 - tuner.windows_seen / BUDGET))
        mean = {name: old + share * (tuner._ema.held[name] - old) for name, old in mean.items()}
    for name, parameter in tuner._trainable.parameters.items():
        np.testing.assert_allclose(parameter.detach(), mean[name], rtol=1e-4, atol=1e-7)
    assert any(not torch.equal(held, tuner._trainable.parameters[name]) for name, held in tuner._ema.held.items())
    tuner.save(tmp_path / "saved")
    saved = checkpoint.read(tmp_path / "saved")
    for name, parameter in tuner._trainable.parameters.items():
        assert torch.equal(saved.weights[name], parameter)
        assert torch.equal(saved.state["weights"][name], tuner._ema.held[name])
    other = small_tuner(mode=mode)
    other.restore(tmp_path / "saved", to_train=False)
    exported = [one._trainable.merged().state_dict() for one in (tuner, other)]
    assert all(torch.equal(tensor, exported[1][name]) for name, tensor in exported[0].items())


def test_a_checkpoint_without_the_weights_in_training_changes_nothing(tmp_path: Path) -> None:
    """As an earlier version wrote it: the run then begins anew, with what it had."""
    tuner, fresh = small_tuner(), small_tuner()
    tuner.advance(5)
    tuner.save(tmp_path / "saved")
    saved = checkpoint.read(tmp_path / "saved")
    del saved.state["weights"]
    checkpoint.write(tmp_path / "saved", saved)
    other = small_tuner()
    with pytest.raises(Exception, match="does not fit"):
        other.restore(tmp_path / "saved")
    for name, parameter in fresh._trainable.parameters.items():
        assert torch.equal(other._trainable.parameters[name], parameter)


def test_at_the_end_of_the_schedule_it_is_the_weights_that_are_scored() -> None:
    """As the library's own training leaves them."""
    tuner = small_tuner()
    tuner.advance(BUDGET)
    assert all(torch.equal(tuner._trainable.parameters[name], held) for name, held in tuner._ema.held.items())
