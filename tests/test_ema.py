"""The moving average of a training run's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from chronotune import checkpoint
from chronotune.ema import REACH, Ema
from engine_parts import small_tuner, weights_of


def parameters() -> dict[str, nn.Parameter]:
    """Two, of different shapes."""
    return {"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(3, 1))}


def test_the_mean_reaches_back_over_a_share_of_the_steps() -> None:
    """At the peak rate: of a weight that grows by 1 a step it is that share of the steps behind."""
    own = parameters()
    ema = Ema(own)
    for step in range(1, 2001):
        own["a"].data += 1
        ema.add(step, left=1.0)
    behind = 2000 - ema.held["a"]
    assert behind.numpy() == pytest.approx(2000 * REACH / (1 + REACH), rel=1e-3)
    assert not ema.held["b"].any()


def test_when_the_rate_has_fallen_the_mean_is_the_weights() -> None:
    """To the last bit, whatever it was before."""
    own = parameters()
    ema = Ema(own)
    for step, left in ((1, 0.9), (2, 0.5), (3, 0.0)):
        own["a"].data += torch.rand(2)
        ema.add(step, left)
    assert torch.equal(ema.held["a"], own["a"].detach())


def test_what_is_held_takes_the_place_of_the_weights() -> None:
    """And gives it back; parameters stay the objects that an optimizer knows."""
    own = parameters()
    ema = Ema(own)
    known = own["a"]
    own["a"].data += 1
    ema.swap()
    assert not own["a"].any()
    assert ema.held["a"].all()
    ema.swap()
    assert own["a"] is known
    assert own["a"].all()
    with pytest.raises(KeyError):
        ema.load({"a": torch.ones(2)})


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_run_is_scored_saved_and_exported_with_its_mean(mode: str, tmp_path: Path) -> None:
    """Between calls; training goes on from the weights, which the checkpoint has beside it."""
    tuner = small_tuner(mode=mode)
    tuner.advance(12)
    shown = {name: parameter.detach().clone() for name, parameter in tuner._trainable.parameters.items()}
    apart = [float((shown[name] - held).abs().max()) for name, held in tuner._ema.held.items()]
    assert max(apart) > 0
    tuner.save(tmp_path / "saved")
    saved = checkpoint.read(tmp_path / "saved")
    assert all(torch.equal(saved.weights[name], tensor) for name, tensor in shown.items())
    assert all(torch.equal(saved.state["weights"][name], held) for name, held in tuner._ema.held.items())


def test_at_the_end_of_the_schedule_it_is_the_weights_that_are_scored() -> None:
    """As the library's own training leaves them."""
    tuner = small_tuner()
    tuner.advance(16)
    ends = weights_of(tuner)
    assert all(np.array_equal(ends[name], held.numpy()) for name, held in tuner._ema.held.items())
