"""Python's garbage collector, kept from looking at what stays, libraries and a base model, or while it must not."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries inside the block: the collector waits, and passes over all that is there at its end.

    Ray, torch and the model's library are half a million objects. While they come, the collector would look at those
    that are there time and again: a fifth of what the imports take, and a quarter of a second at every pass over all of
    them later. What it would have found is 10 MB, which stay.
    """
    with paused():
        try:
            yield
        finally:
            gc.freeze()


@contextmanager
def paused() -> Iterator[None]:
    """Keep the collector from looking inside the block, in whatever thread."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def settle() -> None:
    """Pass over all that is there now for the rest of the process, after a last look at what came since `importing`."""
    gc.collect()
    gc.freeze()
