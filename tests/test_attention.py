"""The shorter way through the model gives the library's own losses, gradients and forecasts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from chronotune import attention, onednn
from chronotune.attention import equal_rows, inside_windows
from chronotune.config.space import Hyperparameters
from chronotune.data.batches import collate
from chronotune.data.panel import Window
from chronotune.forecaster import predict_windows
from chronotune.trainable import Trainable
from engine_parts import ALL, CONTEXT, HORIZON, KNOWN, WINDOWS, small_model, small_panel, small_tuner

PATCHES = 2  # cover the horizon


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """Whether the library is known is remembered for a process; not from one test to the next."""
    attention.is_known.cache_clear()
    yield
    attention.is_known.cache_clear()


def panel_batch(covariates: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Windows of the small panel: full histories, left padding, missing values."""
    batch = collate(small_panel().select(covariates), WINDOWS, CONTEXT, HORIZON)
    return {name: torch.from_numpy(array) for name, array in vars(batch).items()}


def random_batch(windows: int, rows: int, missing: bool = False) -> dict[str, torch.Tensor]:
    """Random windows; the last row of each is known in advance; `missing` empties whole pasts of several rows."""
    random = torch.Generator().manual_seed(rows)
    context = torch.randn(windows, rows, CONTEXT, generator=random)
    target, known = torch.full((2, windows, rows, HORIZON), torch.nan)
    target[:, 0] = torch.randn(windows, HORIZON, generator=random)
    if rows > 1:
        known[:, -1] = torch.randn(windows, HORIZON, generator=random)
    if missing:
        context[0, -1] = context[1, 0] = torch.nan
        context[2, :, : CONTEXT // 2] = torch.nan  # left padding of all rows
        context[3] = torch.nan
    groups = torch.arange(windows).repeat_interleave(rows)
    parts = {"context": context, "future_target": target, "future_covariates": known}
    return {**{name: part.flatten(0, 1) for name, part in parts.items()}, "group_ids": groups}


BATCHES = {
    "no covariates": panel_batch(()),
    "known": panel_batch(KNOWN),
    "all": panel_batch(ALL),
    "one window": random_batch(1, 3),
    "one row": random_batch(1, 1),
    "many rows": random_batch(5, 12),
    "missing": random_batch(4, 4, missing=True),
    "missing, one row": random_batch(4, 1, missing=True),
}


def model_of(mode: str) -> Any:
    """The small model without dropout, all weights in training or adapters that are not 0."""
    point = Hyperparameters(
        learning_rate=1e-3,
        windows=3,
        accumulation=1,
        context_length=CONTEXT,
        covariates="all",
        mode=mode,
        lora_rank=4 if mode == "lora" else None,
    )
    torch.manual_seed(5)
    model = Trainable(small_model(dropout=0.0), point, HORIZON, torch.device("cpu")).model.train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def computed(model: Any, batch: dict[str, torch.Tensor], **options: Any) -> tuple[Any, dict[str, Any]]:
    """Output and gradients of one pass; `options` of the shorter way, if any."""
    model.zero_grad()
    with inside_windows(model, **options) if options else nullcontext():
        output = model(**batch, num_output_patches=PATCHES)
    output.loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return output, {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in trained.items()}


def assert_same_gradients(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal but for float noise, by the norm of each tensor beside that of all."""
    whole = torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
    assert whole > 0
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7 * whole, name


@pytest.mark.parametrize("known_rows", [True, False])
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_training_is_the_librarys(mode: str, name: str, known_rows: bool) -> None:
    """The same loss, forecasts of the targets and gradients, adapters or not."""
    model, batch = model_of(mode), BATCHES[name]
    rows = equal_rows(batch["group_ids"].numpy())
    theirs, their_gradients = computed(model, batch)
    ours, our_gradients = computed(model, batch, rows=rows if known_rows else None, patches=PATCHES)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    spread = theirs.quantile_preds[::rows].abs().max()
    assert (ours.quantile_preds - theirs.quantile_preds)[::rows].abs().max() <= 1e-6 * max(1, spread)
    assert_same_gradients(our_gradients, their_gradients)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_all_forecasts(name: str, implementation: str) -> None:
    """Without a number of patches every row's forecast is the library's, by either of its attentions."""
    model, batch = model_of("full"), BATCHES[name]
    for block in model.encoder.block:
        for layer in block.layer[:2]:
            layer.self_attention.config._attn_implementation = implementation
    theirs, their_gradients = computed(model, batch)
    ours, our_gradients = computed(model, batch, rows=None)
    spread = theirs.quantile_preds.abs().max()
    assert (ours.quantile_preds - theirs.quantile_preds).abs().max() <= 1e-6 * max(1, spread)
    assert_same_gradients(our_gradients, their_gradients)


def test_mixed_precision() -> None:
    """In bfloat16 the loss is as near to that of fp32 as the library's own."""
    model, batch = model_of("full"), BATCHES["all"]
    exact, _ = computed(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = (computed(model, batch, **options)[0] for options in ({}, {"patches": PATCHES}))
    for output in (theirs, ours):
        assert output.loss.item() == pytest.approx(exact.loss.item(), rel=1e-2)


def input_shapes(model: Any, batch: dict[str, torch.Tensor], **options: Any) -> dict[str, tuple[int, ...]]:
    """What reaches each module, by its name, in a pass that takes the shorter way."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: shapes.update({name: tuple(inputs[0].shape)} if inputs else {})
        )
    with inside_windows(model, **options):
        model(**batch, num_output_patches=PATCHES)
    return shapes


def test_nothing_else_is_computed() -> None:
    """Attention inside windows; the last block's queries, feed-forward and the head for used forecasts only."""
    windows, rows, positions, width = 5, 12, CONTEXT // 16 + 1 + PATCHES, 32
    shapes = input_shapes(model_of("full"), BATCHES["many rows"], patches=PATCHES)
    first, last = "encoder.block.0.layer", "encoder.block.1.layer"
    assert shapes[f"{first}.1.self_attention.q"] == (windows * positions, rows, width)
    assert shapes[f"{first}.2"] == (windows * rows, positions, width)
    assert shapes[f"{last}.0.self_attention.k"] == (windows * rows, positions, width)
    assert shapes[f"{last}.0.self_attention.q"] == (windows * rows, PATCHES, width)
    assert shapes[f"{last}.1.self_attention.k"] == (windows * PATCHES, rows, width)
    assert shapes[f"{last}.1.self_attention.q"] == (windows * PATCHES, 1, width)
    for name in (f"{last}.2", "encoder.final_layer_norm", "output_patch_embedding.hidden_layer"):
        assert shapes[name] == (windows, PATCHES, width), name


def test_an_only_row_asks_nothing() -> None:
    """The weight of an only key is 1: group attention needs neither queries nor keys."""
    shapes = input_shapes(model_of("full"), BATCHES["no covariates"], patches=PATCHES)
    for block in range(2):
        assert f"encoder.block.{block}.layer.0.self_attention.q" in shapes
        assert not {f"encoder.block.{block}.layer.1.self_attention.{part}" for part in "qk"} & shapes.keys()
        assert f"encoder.block.{block}.layer.1.self_attention.v" in shapes


def test_training_and_forecasting_take_it() -> None:
    """The engine's and the forecaster's passes reach the head with one row of each window."""
    tuner = small_tuner(windows=3)
    heads: list[tuple[int, ...]] = []
    head = tuner.model.output_patch_embedding.hidden_layer
    head.register_forward_pre_hook(lambda _, inputs: heads.append(tuple(inputs[0].shape)))
    tuner.advance(1)
    windows = [Window(0, origin) for origin in range(100, 107)]
    predict_windows(tuner.model, small_panel(), windows, context_length=CONTEXT, horizon=HORIZON, covariates=ALL)
    assert heads == [(3, PATCHES, 32), (7, PATCHES, 32)]


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("shorter", [True, False])
def test_dropout_of_attention_weights(rows: int, shorter: bool) -> None:
    """In training each head's weight is dropped or doubled at a rate of one half, as by the library; else kept."""
    model, batch = model_of("full"), random_batch(1, rows)
    layer = model.encoder.block[0].layer[1].self_attention
    layer.dropout = 0.5
    seen: dict[str, Any] = {}
    with torch.no_grad():  # keys are 0, so that all weights are equal, and so are all values
        layer.k.weight.zero_()
    layer.v.register_forward_hook(lambda _, __, output: torch.ones_like(output))
    layer.o.register_forward_pre_hook(lambda _, inputs: seen.update(heads=inputs[0].unflatten(-1, (2, 16))))
    for training in (True, False):
        model.train(training)
        with inside_windows(model, patches=PATCHES) if shorter else nullcontext():
            for _ in range(20):
                model(**batch, num_output_patches=PATCHES)
                weights = seen["heads"] * rows / 2  # how many are kept
                seen.setdefault(str(training), []).append(weights)
                assert torch.allclose(weights, weights[..., :1])  # the same through a head
    kept = torch.stack(seen["True"])
    assert torch.allclose(kept, kept.round(), atol=1e-5)
    assert 0.4 < kept.mean() / rows < 0.6
    assert kept.std() > 0.2
    assert torch.allclose(torch.stack(seen["False"]) * 2, torch.tensor(float(rows)))


def test_the_model_is_as_before() -> None:
    """State dict, attributes, copies and the library's classes: nothing stays replaced, also after an error."""
    from chronos.chronos2.layers import ResidualBlock
    from chronos.chronos2.model import Chronos2Encoder

    model = model_of("lora")
    replaced = (model.encoder, model.output_patch_embedding)
    before = [dict(vars(module)) for module in replaced]
    classes = (Chronos2Encoder.forward, ResidualBlock.forward)
    keys = list(model.state_dict())
    with inside_windows(model, patches=PATCHES):
        assert list(model.state_dict()) == keys
        assert (Chronos2Encoder.forward, ResidualBlock.forward) == classes
        assert all("forward" in vars(module) for module in replaced)
    assert [dict(vars(module)) for module in replaced] == before
    with pytest.raises(ValueError, match="context must have shape"), inside_windows(model, patches=PATCHES):
        model(context=torch.zeros(1))
    assert [dict(vars(module)) for module in replaced] == before
    assert list(copy.deepcopy(model).state_dict()) == keys


@pytest.mark.parametrize("groups", [[0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 0, 0]], ids=str)
def test_other_groups_go_the_librarys_way(groups: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows with different rows or mixed rows: the same to the last bit, forecasts of all rows included."""
    monkeypatch.setattr(onednn, "is_faster", lambda: False)
    model = model_of("full").eval()
    batch = {**random_batch(len(groups), 1), "group_ids": torch.tensor(groups)}
    with torch.inference_mode():
        theirs = model(**batch, num_output_patches=PATCHES)
        with inside_windows(model, patches=PATCHES):
            model(**BATCHES["all"], num_output_patches=PATCHES)  # what was left out there is forgotten
            ours = model(**batch, num_output_patches=PATCHES)
    assert torch.equal(ours.quantile_preds, theirs.quantile_preds)
    assert torch.equal(ours.loss, theirs.loss)


@pytest.mark.parametrize(
    ("groups", "rows"),
    [
        ([0], 1),
        ([4, 4, 4], 3),
        ([2, 0, 1], 1),
        ([1, 1, 0, 0], 2),
        ([0, 0, 1], None),
        ([0, 1, 1], None),
        ([0, 1, 1, 2], None),
        ([0, 0, 1, 1, 2], None),
        ([0, 1, 0], None),
        ([0, 0, 1, 1, 0, 0], None),
    ],
)
def test_equal_rows(groups: list[int], rows: int | None) -> None:
    """Blocks of one length, each with a number of its own."""
    assert equal_rows(np.array(groups)) == rows


def test_attention_weights_are_the_librarys() -> None:
    """Whoever asks for them gets them from the library's own way."""
    model, batch = model_of("full").eval(), BATCHES["all"]
    with inside_windows(model, patches=PATCHES):
        output = model(**batch, num_output_patches=PATCHES, output_attentions=True)
    assert len(output.enc_group_self_attn_weights) == 2


def test_the_library_is_the_one_compared_with() -> None:
    """Fails when the installed library's source is new to us."""
    assert attention.source_digest() in attention.KNOWN_SOURCES, (
        f"chronos-forecasting has changed (source {attention.source_digest()}): compare what source_digest names with "
        "chronotune/attention.py, follow what changed, run the other tests here with the new digest in KNOWN_SOURCES, "
        "and keep it there once they pass"
    )


def test_an_unknown_library_goes_its_own_way(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is replaced, and the log says so once."""
    monkeypatch.setattr(attention, "KNOWN_SOURCES", frozenset())
    model, batch = model_of("full"), BATCHES["all"]
    theirs, _ = computed(model, batch)
    with caplog.at_level(logging.WARNING, "chronotune.attention"):
        for _ in range(2):
            with inside_windows(model, patches=PATCHES):
                assert "forward" not in vars(model.encoder)
                ours = model(**batch, num_output_patches=PATCHES)
    assert torch.equal(ours.quantile_preds, theirs.quantile_preds)
    assert len(caplog.records) == 1
    assert "has not been compared" in caplog.text


def test_a_change_of_the_source_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another source has another digest, and a library without source has none."""
    import inspect

    before = attention.source_digest()
    with monkeypatch.context() as patches:
        source = inspect.getsource
        patches.setattr(inspect, "getsource", lambda what: source(what) + ("#" if what.__name__ == "MHA" else ""))
        assert attention.source_digest() not in {before, ""}

    def without_source(what: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(inspect, "getsource", without_source)
    assert attention.source_digest() == ""
