"""Work beside a block: it waits for the block's result, and its errors come out."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from chronotune.meanwhile import meanwhile


def test_work_begins_beside_the_block_and_ends_with_its_result() -> None:
    """In a thread of its own, which has ended when the block has."""
    begun, done = threading.Event(), list[tuple[int, bool]]()

    def work(told: Callable[[], int]) -> None:
        begun.set()
        done.append((told(), threading.current_thread() is threading.main_thread()))

    with meanwhile(work) as result:
        assert begun.wait(10), "it does not wait for the block"
        assert not done
        result.set_result(7)
    assert done == [(7, False)]


def test_an_error_of_the_block_reaches_the_work_and_comes_out() -> None:
    """So that it cleans up."""
    seen = list[str]()

    def work(told: Callable[[], int]) -> None:
        try:
            told()
        except ValueError as error:
            seen.append(str(error))
            raise RuntimeError("cleaned up") from error

    with pytest.raises(ValueError, match="wrong"), meanwhile(work):
        raise ValueError("wrong")
    assert seen == ["wrong"]


def test_an_error_of_the_work_comes_out_at_the_end() -> None:
    """The block itself is not disturbed."""

    def work(_: Callable[[], int]) -> None:
        raise OSError("disk full")

    def block() -> None:
        with meanwhile(work) as result:
            result.set_result(1)

    with pytest.raises(OSError, match="disk full"):
        block()
