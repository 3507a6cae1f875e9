"""The library's own training, `Chronos2Pipeline.fit`, and ours are the same function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chronotune import onednn
from chronotune.data.batches import draw_windows
from engine_parts import (
    ALL,
    CONTEXT,
    HORIZON,
    KNOWN,
    PAST_ONLY,
    TRAIN_END,
    small_model,
    small_panel,
    small_tuner,
    weights_of,
)

LIBRARY_TARGETS = [
    "self_attention.q",
    "self_attention.v",
    "self_attention.k",
    "self_attention.o",
    "output_patch_embedding.output_layer",
]


def fit_by_the_library(
    mode: str,
    accumulation: int,
    covariates: Sequence[str],
    steps: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[list[float], dict[str, np.ndarray[Any, Any]]]:
    """`Chronos2Pipeline.fit` with its own batches, except that it draws the windows that we draw.

    Returns:
        The loss of each micro-batch, and the weights.
    """
    import peft
    from chronos import Chronos2Pipeline
    from chronos.chronos2.trainer import Chronos2Trainer

    panel, numbers = small_panel().until(TRAIN_END).select(covariates), (0, 1)
    rows = 1 + len(panel.covariates)

    def draws() -> Iterator[int]:
        """All series of a micro-batch, then all origins: the order in which the library asks."""
        step = 0
        while True:
            windows = draw_windows(panel, numbers, HORIZON, seed=11, step=step, size=3 * accumulation)
            for start in range(0, len(windows), 3):
                yield from (window.series for window in windows[start : start + 3])
                yield from (window.origin for window in windows[start : start + 3])
            step += 1

    def compute_loss(self: Any, model: Any, inputs: Any, **options: Any) -> Any:
        loss = original_loss(self, model, inputs, **options)
        losses.append(loss.item())
        return loss

    def get_peft_model(*arguments: Any) -> Any:
        torch.manual_seed(11)
        return original_adapters(*arguments)

    stream, losses = draws(), []  # type: ignore[var-annotated]
    original_loss, original_adapters = Chronos2Trainer.compute_loss, peft.get_peft_model
    monkeypatch.setattr(np.random, "randint", lambda *_: next(stream))
    monkeypatch.setattr(Chronos2Trainer, "compute_loss", compute_loss)
    monkeypatch.setattr(peft, "get_peft_model", get_peft_model)
    inputs = [
        {
            "context": torch.from_numpy(np.concatenate([panel.series[i].target[None], panel.series[i].covariates])),
            "future_covariates": torch.full((rows, HORIZON), torch.nan),
            "n_targets": 1,
            "n_covariates": len(panel.covariates),
            "n_future_covariates": len(panel.known_future),
        }
        for i in numbers
    ]
    fitted = Chronos2Pipeline(small_model(dropout=0.0)).fit(
        inputs,
        prediction_length=HORIZON,
        finetune_mode=mode,
        lora_config=peft.LoraConfig(r=4, lora_alpha=8, target_modules=LIBRARY_TARGETS) if mode == "lora" else None,
        context_length=CONTEXT,
        learning_rate=1e-3,
        num_steps=steps,
        batch_size=3 * rows,
        output_dir=folder,
        remove_printer_callback=True,
        gradient_accumulation_steps=accumulation,
        disable_tqdm=True,
    )
    weights = {name.removeprefix("base_model.model."): t.numpy() for name, t in fitted.model.state_dict().items()}
    return losses, weights


def merged(weights: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Plain weights: an adapted one is W + 2 B A, alpha being twice the rank."""
    plain = {}
    for name, values in weights.items():
        if "lora" not in name:
            b, a = (name.replace("base_layer", f"lora_{part}.default") for part in "BA")
            adapted = "base_layer.weight" in name
            plain[name.replace("base_layer.", "")] = values + 2 * weights[b] @ weights[a] if adapted else values
    return plain


@pytest.fixture(autouse=True)
def the_same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's products are MKL's; Adam makes more of last places than the bounds. oneDNN: `test_onednn.py`."""
    monkeypatch.setattr(onednn, "is_faster", lambda: False)


@pytest.mark.parametrize("covariates", [(), PAST_ONLY, KNOWN, ALL], ids=["none", "past-only", "known-future", "all"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_parity_with_fit(
    mode: str, accumulation: int, covariates: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty steps of `Chronos2Pipeline.fit` on the same windows without dropout: the same losses and weights.

    The library cuts, pads and masks its own batches. Adam turns float noise in a tiny gradient into a full step, so
    tensors are compared by norms: beside the tensor itself, adapters merged, and beside its change by training, which
    tells more of those that hardly moved or, as adapters do, began at 0.
    """
    steps, batch = 20, 3 * accumulation
    with monkeypatch.context() as patches:
        losses, theirs = fit_by_the_library(mode, accumulation, covariates, steps, tmp_path, patches)
    plan: dict[str, Any] = {"rungs": (batch * steps,), "budget_windows": batch * steps, "covariates": covariates}
    tuner = small_tuner(mode, accumulation, dropout=0.0, **plan)
    start = weights_of(tuner)
    ours = [tuner.advance(batch * step).loss for step in range(1, steps + 1)]
    np.testing.assert_allclose(ours, np.reshape(losses, (steps, accumulation)).mean(axis=1), rtol=1e-5)
    trained = weights_of(tuner)
    assert trained.keys() == theirs.keys()
    for name, weights in trained.items():
        assert np.linalg.norm(weights - theirs[name]) <= 1e-3 * np.linalg.norm(weights - start[name]), name
    ours_merged, theirs_merged = merged(trained), merged(theirs)
    assert ours_merged.keys() == weights_of(small_tuner()).keys()
    for name, weights in theirs_merged.items():
        assert np.linalg.norm(ours_merged[name] - weights) <= 1e-4 * np.linalg.norm(weights), name
