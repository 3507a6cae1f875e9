"""Other `forward`s for some of a model's layers, for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Inside the block, these instances have these `forward`s; their classes and state dicts stay untouched.

    A copy or a pickle that is made inside the block would keep them.
    """
    before = {layer: vars(layer).get("forward") for layer in forwards}  # set by nobody but by tools that do the same
    try:
        for layer, forward in forwards.items():
            vars(layer)["forward"] = forward
        yield
    finally:
        for layer, earlier in before.items():
            if earlier is None:
                vars(layer).pop("forward", None)
            else:
                vars(layer)["forward"] = earlier
