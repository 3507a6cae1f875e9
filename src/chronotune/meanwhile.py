"""Work in a thread of its own, beside what its last part waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def meanwhile(work: Callable[[Callable[[], T]], None]) -> Iterator[Future[T]]:
    """Run `work` beside the block, and wait for it at the block's end.

    Args:
        work: Gets a function that waits for the result that the block sets, and gives it. Where the block ends without
            one, that function raises `CancelledError`, and `work` has to clean up.

    Raises:
        Exception: Of the block, or else of `work`.
    """
    told = Future[T]()
    with ThreadPoolExecutor(1, thread_name_prefix="meanwhile") as thread:
        try:
            working = thread.submit(work, told.result)
            yield told
        finally:
            told.cancel()  # nothing where the result is set
        working.result()
