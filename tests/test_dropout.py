"""Dropout by fewer random bits: torch's in all that matters, repeated with its generator, and put back afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from chronotune import dropout as dropouts
from chronotune.dropout import dropout, dropout_layers, is_ours
from engine_parts import same, small_tuner, weights_of

MANY = 400_000


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
def test_as_much_is_dropped_and_the_mean_stays(probability: float) -> None:
    """What is kept is scaled by one factor; gradients are those of the same numbers."""
    torch.manual_seed(0)
    inputs = torch.ones(MANY, requires_grad=True)
    outputs = dropout(inputs, probability)
    dropped = (outputs == 0).double().mean().item()
    assert dropped == pytest.approx(probability, abs=5 * (probability * (1 - probability) / MANY) ** 0.5)
    [kept] = outputs[outputs != 0].unique().tolist()
    assert kept == pytest.approx(1 / (1 - probability), rel=2e-4)
    [gradient] = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.equal(gradient, outputs)


def test_the_factor_keeps_the_mean_exactly() -> None:
    """It is that of the rounded probability, not of the one asked for."""
    torch.manual_seed(0)
    many = round(0.1 * dropouts.CHANCES)
    kept = dropout(torch.ones(64), 0.1).max().item()
    assert kept * (1 - many / dropouts.CHANCES) == pytest.approx(1, rel=1e-7)


def test_neighbours_are_independent() -> None:
    """All 64 bits of a drawn number are random: the four that share one are dropped as often, and not together."""
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(MANY), 0.5) == 0).view(-1, 4).double()
    noise = (MANY / 4) ** -0.5
    assert (dropped.mean(0) - 0.5).abs().max() < 5 * 0.5 * noise
    together = np.corrcoef(torch.cat([dropped[:-1], dropped[1:]], 1).T.numpy())
    assert np.abs(together - np.eye(8)).max() < 5 * noise


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7), (0, 4), ()])
def test_any_shape(shape: tuple[int, ...]) -> None:
    """Also where the last drawn number is not used up."""
    assert dropout(torch.ones(shape), 0.5).shape == shape


def test_torchs_generator_decides() -> None:
    """The same state gives the same, the next call something else, with however many threads."""
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(3)
        found += [dropout(torch.ones(1000), 0.5) for _ in range(2)]
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("probability", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("numbers", [torch.float64, torch.bfloat16, torch.float32])
def test_elsewhere_it_is_torchs(numbers: torch.dtype, probability: float) -> None:
    """Other numbers, nothing or all to drop, and no training; a GPU is not asked here."""
    states = torch.randn(100, dtype=numbers)
    assert is_ours(states, probability) is (numbers == torch.float32 and probability == 0.1)
    if not is_ours(states, probability):
        torch.manual_seed(0)
        ours = dropout(states, probability)
        torch.manual_seed(0)
        assert torch.equal(ours, functional.dropout(states, probability))
    assert torch.equal(dropout(states, probability, training=False), states)


def test_layers_are_put_back() -> None:
    """Those that somebody else changed, and those that work in place, stay as they are; evaluation drops nothing."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5, inplace=True), nn.Dropout(0.5))
    theirs = model[2].forward = lambda states: states
    with dropout_layers(model):
        assert ["forward" in vars(layer) for layer in model] == [True, False, True]
        assert vars(model[2])["forward"] is theirs
        torch.manual_seed(0)
        ours = model[0](torch.ones(1000))
        assert torch.equal(model.eval()(torch.ones(8)), torch.ones(8))
    torch.manual_seed(0)
    assert torch.equal(ours, dropout(torch.ones(1000), 0.5))
    assert ["forward" in vars(layer) for layer in model] == [False, False, True]


def test_a_training_step_draws_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dropout of the model goes this way, that of attention's weights too; where all is kept it is as without."""
    monkeypatch.setattr(functional, "dropout", None)
    with monkeypatch.context() as fused:
        fused.setattr(functional, "scaled_dot_product_attention", None)
        (tuner := small_tuner()).advance(5)
        fused.setattr(dropouts, "_noise", lambda shape, _: torch.ones(shape))
        (kept := small_tuner()).advance(5)
    assert not same(weights_of(tuner), weights_of(kept))
    monkeypatch.undo()
    (without := small_tuner(dropout=0.0)).advance(5)
    for ours, theirs in zip(weights_of(kept).values(), weights_of(without).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_as_much_is_kept_for_the_backward_pass(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step takes is predicted by what torch's own dropout and attention keep."""
    ours = _kept(mode)
    monkeypatch.setattr(dropouts, "is_ours", lambda *_: False)
    assert ours == _kept(mode)


def _kept(mode: str) -> int:
    """Bytes that the backward pass of one step finds, each once."""
    alive = list[torch.Tensor]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        return tensor

    tuner = small_tuner(mode, budget_windows=3, rungs=(3,))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tuner.advance(3)
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}
    return sum(storages.values())
