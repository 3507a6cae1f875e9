"""A shorter way through a Chronos-2 model to the same forecasts, for batches of windows with equally many rows.

The library lets every row of a batch attend to every other and masks what lies outside its window, and it computes
for every row and every patch what only forecasts of targets need. Here rows attend inside their window only, and from
the time attention of the last block on, only what reaches a used forecast is computed: the future patches, and after
the last group attention, which still reads the covariates' rows, the first row of each window.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chronotune.forwards import replaced

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model
    from torch import Tensor, nn

log = logging.getLogger("chronotune.attention")

KNOWN_SOURCES = frozenset({"7cc9e2602259bbcd"})  # chronos-forecasting 2.3.2
"""Values of `source_digest` of the library's versions that this module was compared with; others run unchanged."""


@contextmanager
def inside_windows(model: Chronos2Model, *, rows: int | None = None, patches: int | None = None) -> Iterator[None]:
    """Inside the block, forward passes of this model take the shorter way; backward passes may follow outside.

    Only `forward`s of this instance are replaced, and put back afterwards: the library's classes, the state dict
    and what is copied, pickled or saved outside the block are untouched. A batch whose windows differ in rows or do
    not lie one after the other, and any library of unknown source, take the library's own way.

    Args:
        model: Adapters may be in it.
        rows: Rows of every window, when the caller knows that batches are whole windows of so many; None to read it
            off each batch's `group_ids`, which waits for a GPU.
        patches: Output patches of each forward pass, when only the forecasts of each window's first row are used and
            only that row carries a loss: the loss is then the library's, and the other rows' forecasts mean nothing.
            None when all forecasts are used.
    """
    if not is_known():
        yield
        return
    from chronotune.dropout import dropout_layers  # these two import torch
    from chronotune.onednn import linear_layers

    shortcut = _Shortcut(model, rows, patches)
    shorter: dict[nn.Module, Any] = {model.encoder: shortcut.encode, model.output_patch_embedding: shortcut.project}
    with linear_layers(model), dropout_layers(model), replaced(shorter):
        yield


def equal_rows(group_ids: NDArray[np.int64]) -> int | None:
    """Rows of each group, when all have equally many and lie one after the other; else None.

    Args:
        group_ids: Shape (rows of the batch,).
    """
    starts = np.flatnonzero(np.diff(group_ids, prepend=group_ids[0] - 1))
    rows = len(group_ids) // len(starts)
    regular = np.array_equal(starts, np.arange(len(starts)) * rows) and rows * len(starts) == len(group_ids)
    return rows if regular and len(np.unique(group_ids[starts])) == len(starts) else None


def source_digest() -> str:
    """A hash of the library's source that this module replaces or relies on; empty where there is no source."""
    from chronos.chronos2 import layers, model

    relied_on: tuple[Any, ...] = (
        layers.Chronos2RotaryEmbedding,
        layers.MHA,
        layers.TimeSelfAttention,
        layers.GroupSelfAttention,
        layers.FeedForward,
        layers.ResidualBlock,
        model.Chronos2EncoderBlock,
        model.Chronos2Encoder,
        model.Chronos2Model.encode,
        model.Chronos2Model.forward,
        model.Chronos2Model._compute_loss,
    )
    try:
        text = "".join(map(inspect.getsource, relied_on))
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def is_known() -> bool:
    """Whether the installed library is one of `KNOWN_SOURCES`, so that the shorter way is taken; logged once if not."""
    from importlib.metadata import version

    if (digest := source_digest()) in KNOWN_SOURCES:
        return True
    log.warning(
        "chronos-forecasting %s (source %s) has not been compared with our faster attention; its own, slower way is "
        "taken, with the same forecasts",
        version("chronos-forecasting"),
        digest or "not installed",
    )
    return False


class _Shortcut:
    """The two replaced `forward`s of one model."""

    def __init__(self, model: Chronos2Model, rows: int | None, patches: int | None) -> None:
        self._encoder, self._rows, self._patches = model.encoder, rows, patches
        self._stock_encode, self._stock_project = model.encoder.forward, model.output_patch_embedding.forward
        self._left_out: int | None = None  # rows of each window, when the last encoding was of its first row only

    def encode(
        self, inputs_embeds: Tensor, *, group_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> Any:
        """In place of `Chronos2Encoder.forward`; what is left out of its output is 0."""
        from chronos.chronos2.model import Chronos2EncoderOutput

        self._left_out = None
        rows = self._rows or equal_rows(group_ids.cpu().numpy())
        if rows is None or attention_mask is None or any(others.values()):  # attention weights are asked for
            return self._stock_encode(inputs_embeds, group_ids=group_ids, attention_mask=attention_mask, **others)
        states = _encode(self._encoder, inputs_embeds, attention_mask, rows, self._patches)
        if self._patches is not None:
            self._left_out = rows
            states = _with_zeros(states, rows, inputs_embeds.shape[1])
        return Chronos2EncoderOutput(states, (), ())

    def project(self, states: Tensor) -> Tensor:
        """In place of the output head's `forward`."""
        if (rows := self._left_out) is None:
            return self._stock_project(states)
        return _with_zeros(self._stock_project(states[::rows]), rows, states.shape[1])


def _with_zeros(states: Tensor, rows: int, length: int) -> Tensor:
    """(windows, last positions, d) as (windows * rows, length, d), zero but in each window's first row."""
    from torch.nn.functional import pad

    return pad(states.unsqueeze(1), (0, 0, length - states.shape[1], 0, 0, rows - 1)).flatten(0, 1)


def _encode(encoder: Any, embeds: Tensor, attention_mask: Tensor, rows: int, patches: int | None) -> Tensor:
    """The encoder's last states: (rows of the batch, positions, d), or (windows, patches, d)."""
    import torch

    mask = encoder._expand_and_invert_time_attention_mask(attention_mask, embeds.dtype)
    positions = torch.arange(embeds.shape[1], device=embeds.device).unsqueeze(0)
    states = encoder.dropout(embeds)
    for block in encoder.block:
        is_last = block is encoder.block[-1]
        over_time, over_rows, feed_forward = block.layer
        states = _over_time(over_time, states, mask, positions, patches if is_last else None)
        states = _over_rows(over_rows, states, mask, rows, 1 if is_last and patches is not None else rows)
        states = feed_forward(states)
    return encoder.dropout(encoder.final_layer_norm(states))


def _over_time(layer: Any, states: Tensor, mask: Tensor, positions: Tensor, last: int | None) -> Tensor:
    """Attention along each row, for its `last` positions only; None for all."""
    normed = layer.layer_norm(states)
    kept = slice(None) if last is None else slice(-last, None)
    attended = _attend(layer.self_attention, normed[:, kept], normed, mask, positions)
    return states[:, kept] + layer.dropout(attended)


def _over_rows(layer: Any, states: Tensor, mask: Tensor, rows: int, first: int) -> Tensor:
    """Attention inside each window at each position, for its `first` rows only: (windows * first, positions, d)."""
    length = states.shape[1]
    states = states.unflatten(0, (-1, rows)).transpose(1, 2)  # (windows, positions, rows, d)
    normed = layer.layer_norm(states).flatten(0, 1)
    mask = mask[:, 0, 0, -length:].unflatten(0, (-1, rows)).transpose(1, 2).reshape(-1, 1, 1, rows)
    attended = _attend(layer.self_attention, normed[:, :first], normed, mask, None)
    states = states[:, :, :first] + layer.dropout(attended.unflatten(0, (-1, length)))
    return states.transpose(1, 2).flatten(0, 1)


def _attend(attention: Any, asking: Tensor, asked: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
    """Attention of the last or only positions `asking`, (n, q, d), to all `asked`, (n, k, d): (n, q, d).

    The weight of an only key is 1 whatever the query: neither is computed then, and dropout is applied to that weight.
    """
    from chronotune.dropout import dropout

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)

    values = heads(attention.v(asked))
    if asked.shape[1] == 1:
        weights = values.new_ones((*values.shape[:3], 1))
        attended = values * dropout(weights, attention.dropout, attention.training)
    else:
        queries, keys = heads(attention.q(asking)), heads(attention.k(asked))
        if positions is not None:
            cos, sin = attention.rope_embed(values, positions)
            queries, keys = (_rotated(attention.rope_embed, states, cos, sin) for states in (queries, keys))
        attended = _weighted(attention, queries, keys, values, mask)
    return attention.o(attended.transpose(1, 2).flatten(2))


def _weighted(attention: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values by the softmax of queries and keys: the library's, but with our dropout of its weights."""
    from chronotune.dropout import dropout, is_ours

    if attention.training and is_ours(values, attention.dropout):  # where torch has no fused kernel either
        weights = (queries @ keys.mT).add_(mask).softmax(-1)
        return dropout(weights, attention.dropout) @ values
    fused = attention.config._attn_implementation == "sdpa"
    attend = attention._sdpa_attention if fused else attention._eager_attention
    attended: Tensor = attend(queries, keys, values, mask)[0]
    return attended


def _rotated(rotary: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of queries or keys, (n, heads, q, d), that are the last of all positions."""
    last = slice(-states.shape[2], None)
    return states * cos[:, None, last] + rotary.rotate_half(states) * sin[:, None, last]
