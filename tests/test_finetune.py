"""The training engine: exact rungs, bit-identical resuming, and the library's own training step."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chronotune
from chronotune.checkpoint import read_meta
from chronotune.errors import ChronotuneError, StorageError
from chronotune.finetune import NonFiniteLossError
from chronotune.forecaster import predict_windows
from engine_parts import (
    ALL,
    CONTEXT,
    HORIZON,
    TRAIN_END,
    WINDOWS,
    same,
    small_model,
    small_panel,
    small_tuner,
    weights_of,
)

CASES = [("full", 1), ("full", 3), ("lora", 1), ("lora", 3)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Equal to the last bit is promised for an equal number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("mode", "accumulation"), CASES)
def test_slices_forecasts_and_other_code_change_nothing(mode: str, accumulation: int) -> None:
    """In slices, with forecasts and foreign random numbers between them: the same weights to the last bit."""
    unbroken, sliced = (small_tuner(mode, accumulation) for _ in range(2))
    unbroken.advance(16)
    for goal in (1, 5, 7, 16):
        sliced.advance(goal)
        predict_windows(sliced.model, small_panel(), WINDOWS, context_length=64, horizon=HORIZON, covariates=ALL)
        torch.manual_seed(goal)
        np.random.seed(goal)  # noqa: NPY002  # the point of the test
    assert (sliced.windows_seen, sliced.steps) == (unbroken.windows_seen, unbroken.steps)
    assert same(weights_of(sliced), weights_of(unbroken))


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np
import torch
from engine_parts import small_tuner, weights_of
torch.set_num_threads(1)
for folder in map(Path, sys.argv[1:]):
    mode, accumulation = folder.name.split("-")
    tuner = small_tuner(mode, int(accumulation))
    tuner.restore(folder)
    tuner.advance(16)
    np.savez(folder.with_suffix(".npz"), **weights_of(tuner))
"""


def test_resumed_in_another_process(tmp_path: Path) -> None:
    """Saved at a rung and continued by a new process: the weights of an unbroken run to the last bit."""
    unbroken = {}
    for mode, accumulation in CASES:
        tuner = small_tuner(mode, accumulation)
        tuner.advance(5)
        tuner.save(tmp_path / f"{mode}-{accumulation}")
        tuner.advance(16)
        unbroken[f"{mode}-{accumulation}"] = weights_of(tuner)
    path = os.pathsep.join(map(str, [Path(__file__).parent, Path(chronotune.__file__).parents[1]]))
    folders = [str(tmp_path / name) for name in unbroken]
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, *folders]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    for name, weights in unbroken.items():
        with np.load(tmp_path / f"{name}.npz") as resumed:
            assert same(dict(resumed), weights), name


def test_steps_and_learning_rates() -> None:
    """Batch 3, rungs 5 and 16: steps of 3, 2, 3, 3, 3, 2; the rate falls with the windows seen at a step's start."""
    tuner = small_tuner()
    first, second, nothing = tuner.advance(5), tuner.advance(16), tuner.advance(16)
    assert (first.windows_seen, first.steps, second.windows_seen, second.steps) == (5, 2, 16, 6)
    assert first.learning_rate == pytest.approx(1e-3 * (1 - 3 / 16))
    assert second.learning_rate == pytest.approx(1e-3 * (1 - 14 / 16))
    assert np.isnan(nothing.loss)
    assert nothing.steps == 6


def test_between_rungs_steps_are_not_cut() -> None:
    """A goal that is no rung is passed by less than a step, so that slicing never changes the plan."""
    tuner = small_tuner()
    assert tuner.advance(7).windows_seen == 8


def test_learns() -> None:
    """The loss falls on a series that is nothing but a season."""
    panel = small_panel()
    for series in panel.series:
        series.target[:] = np.sin(np.arange(len(series)) / 24 * 2 * np.pi)
    tuner = small_tuner(
        panel=panel, covariates=(), windows=8, budget_windows=640, rungs=(80, 640), dropout=0.0, learning_rate=1e-2
    )
    assert tuner.advance(640).loss < 0.7 * small_tuner(panel=panel, covariates=(), dropout=0.0).advance(16).loss


def test_the_base_model_is_copied() -> None:
    """A worker uses one loaded model for many trials."""
    for mode in ("full", "lora"):
        base = small_model()
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        small_tuner(mode, model=base).advance(16)
        assert base.state_dict().keys() == before.keys()
        assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
        assert not base.training
        assert all(parameter.grad is None and parameter.requires_grad for parameter in base.parameters())


def test_nothing_after_train_end_is_read() -> None:
    """Whatever follows the training segment, the weights are the same to the last bit."""
    panel = small_panel()
    for series in panel.series:
        series.target[max(0, TRAIN_END - series.offset) :] = 1e9
        series.covariates[:, max(0, TRAIN_END - series.offset) :] = -1e9
    changed, unchanged = small_tuner(panel=panel), small_tuner()
    changed.advance(16)
    unchanged.advance(16)
    assert same(weights_of(changed), weights_of(unchanged))


def test_only_the_named_covariates_are_read() -> None:
    """Values of other columns do not matter."""
    panel = small_panel()
    for series in panel.series:
        series.covariates[[0, 3]] = 1e9
    tuners = [small_tuner(panel=p, covariates=("heat", "hour")) for p in (panel, small_panel())]
    for tuner in tuners:
        tuner.advance(5)
    assert same(*map(weights_of, tuners))


def test_the_seed_matters() -> None:
    """Another seed gives other windows, other dropout and other adapters."""
    assert not same(weights_of(small_tuner("lora")), weights_of(small_tuner("lora", seed=12)))
    tuners = [small_tuner(seed=seed, dropout=0.0) for seed in (11, 12)]
    for tuner in tuners:
        tuner.advance(5)
    assert not same(*map(weights_of, tuners))


def test_dropout_is_on_in_training_only() -> None:
    """With dropout the weights are others than without, and between calls the model is in evaluation mode."""
    tuners = [small_tuner(dropout=dropout) for dropout in (0.0, 0.1)]
    for tuner in tuners:
        tuner.advance(5)
        assert not tuner.model.training
    assert not same(*map(weights_of, tuners))


def test_the_callers_random_numbers_are_left_alone() -> None:
    """Neither setting up nor training moves the global generators."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    small_tuner("lora").advance(5)
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_accumulation_is_one_large_batch() -> None:
    """Without dropout, micro-batches of 2, the last of 1, give the gradient of all 5 windows at once."""
    whole = small_tuner(dropout=0.0, windows=5)
    parts = small_tuner(dropout=0.0, windows=2, accumulation=3)
    whole.advance(5)
    parts.advance(5)
    assert (parts.steps, whole.steps) == (1, 1)
    for name, tensor in weights_of(whole).items():
        np.testing.assert_allclose(weights_of(parts)[name], tensor, atol=2e-5, err_msg=name)


def test_divergence_is_an_error_of_its_own() -> None:
    """A loss that is not finite ends training, naming step, loss and rate; the caller's state is in order."""
    tuner = small_tuner(learning_rate=1e30)
    state = torch.get_rng_state()
    with pytest.raises(NonFiniteLossError, match=r"at step 1 the loss was .* learning rate 8\.1") as caught:
        tuner.advance(16)
    assert "\n" not in str(caught.value)
    assert not tuner.model.training
    assert torch.equal(state, torch.get_rng_state())


def test_lora_trains_adapters_only(tmp_path: Path) -> None:
    """Rank as asked, alpha twice that, on the library's layers; the checkpoint holds nothing else."""
    from safetensors.torch import load_file

    tuner = small_tuner("lora")
    start = weights_of(tuner)
    tuner.advance(16)
    changed = {name for name, tensor in weights_of(tuner).items() if not np.array_equal(tensor, start[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    layer = tuner.model.encoder.block[0].layer[0].self_attention.q
    assert layer.scaling["default"] == 2
    tuner.save(tmp_path / "16")
    saved = load_file(tmp_path / "16" / "weights.safetensors")
    assert len(saved) == 2 * (2 * 2 * 4 + 1)  # A and B of q, k, v, o in two attentions of two layers, and the output
    assert all(4 in tensor.shape for tensor in saved.values())


def test_lora_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silently full fine-tuning."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ChronotuneError, match="needs the package peft"):
        small_tuner("lora")


def test_lora_without_rank() -> None:
    """A configuration made by hand may lack it."""
    with pytest.raises(ChronotuneError, match="needs a lora_rank"):
        small_tuner("lora", lora_rank=None)


def test_too_long_a_context() -> None:
    """Refused, where the library would train on less and save more."""
    with pytest.raises(ChronotuneError, match="must not exceed the 128 steps"):
        small_tuner(context_length=256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 2e-3}, r"learning_rate is 0\.001 there and 0\.002 here$"),
        ({"seed": 12}, "seed is 11 there and 12 here$"),
        ({"budget_windows": 32}, "budget_windows is 16 there and 32 here"),
        ({"rungs": (4, 16)}, r"rungs so far is \[5\] there and \[4\] here"),
        ({"covariates": ("hour",)}, "columns is "),
        ({"model_seed": 8}, "base_model is "),
    ],
    ids=str,
)
def test_restore_refuses_other_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Every setting that shapes training is compared; the tuner is as it was."""
    tuner = small_tuner()
    tuner.advance(5)
    tuner.save(tmp_path / "5")
    other = small_tuner(**changes)
    before = weights_of(other)
    with pytest.raises(ChronotuneError, match=message):
        other.restore(tmp_path / "5")
    assert same(before, weights_of(other))
    assert other.windows_seen == 0


def test_rungs_still_ahead_may_differ(tmp_path: Path) -> None:
    """A run that ended early can be continued to where another one ends."""
    tuner = small_tuner(rungs=(5, 10))
    tuner.advance(5)
    tuner.save(tmp_path / "5")
    other, unbroken = small_tuner(), small_tuner()
    other.restore(tmp_path / "5")
    other.advance(16)
    unbroken.advance(16)
    assert same(weights_of(other), weights_of(unbroken))


def test_restore_goes_back_too(tmp_path: Path) -> None:
    """The best of several checkpoints is restored after training went on."""
    tuner = small_tuner()
    tuner.advance(5)
    tuner.save(tmp_path / "5", lambda: {"sql": 0.5})
    best = weights_of(tuner)
    tuner.advance(16)
    assert tuner.restore(tmp_path / "5") == {"sql": 0.5} == read_meta(tmp_path / "5")["notes"]
    assert same(weights_of(tuner), best)
    assert (tuner.windows_seen, tuner.steps) == (5, 2)


def test_restore_of_a_damaged_checkpoint(tmp_path: Path) -> None:
    """One line, and the run can start from the beginning."""
    tuner = small_tuner()
    tuner.advance(5)
    tuner.save(tmp_path / "5")
    (tmp_path / "5" / "state.pt").write_bytes(b"junk")
    with pytest.raises(ChronotuneError, match="damaged"):
        small_tuner().restore(tmp_path / "5")


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_export_is_what_was_trained(mode: str, tmp_path: Path) -> None:
    """Plain Chronos2Pipeline.from_pretrained loads it and forecasts the same; exporting changes nothing here."""
    from chronos import Chronos2Pipeline

    tuner, panel = small_tuner(mode), small_panel()
    tuner.advance(5)
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": ALL}
    ours = predict_windows(tuner.model, panel, WINDOWS, **arguments)
    tuner.export(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    pipeline = Chronos2Pipeline.from_pretrained(tmp_path / "model")
    theirs = predict_windows(pipeline.model, panel, WINDOWS, **arguments)
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(predict_windows(small_model(), panel, WINDOWS, **arguments) - theirs).max() > 1e-3
    untouched = small_tuner(mode)
    for each in (tuner, untouched):
        each.advance(16)
    assert same(weights_of(tuner), weights_of(untouched))


def test_export_updates_the_config(tmp_path: Path) -> None:
    """A horizon beyond the model's is forecast in one go from then on; its context length stays."""
    tuner = small_tuner(horizon=100, context_length=128)
    tuner.advance(5)
    tuner.export(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())["chronos_config"]
    assert (config["max_output_patches"], config["context_length"]) == (7, 128)
    assert config["quantiles"] == small_model().chronos_config.quantiles


def test_export_onto_a_full_disk(tmp_path: Path) -> None:
    """Whoever notices it, the system or safetensors: the folder cannot be written, and is not there."""
    tuner = small_tuner()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # the config is written, the weights are not
    try:
        with pytest.raises(StorageError, match=r"cannot write .*check rights and free space"):
            tuner.export(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_export_does_not_overwrite(tmp_path: Path) -> None:
    """An empty folder may be filled, any other stays."""
    tuner = small_tuner()
    (tmp_path / "model").mkdir()
    tuner.export(tmp_path / "model")
    with pytest.raises(ChronotuneError, match="must not overwrite"):
        tuner.export(tmp_path / "model")
