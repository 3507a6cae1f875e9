"""Openings of a test segment beside the sweeps: each counts once, and none that cannot be noted ends a sweep."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chronotune.openings import FOLDER, Openings, count_beside, is_counted_beside

MOMENTS = [f"2026-01-02T03:04:{second:02}+00:00" for second in range(9)]


def test_each_opening_counts_once(tmp_path: Path) -> None:
    """Those of before the file was there are made up for; data are counted apart; who copies a sweep counts once."""
    assert not is_counted_beside(tmp_path, "data")
    assert [count_beside(tmp_path, "data", "one", MOMENTS[:n]) for n in (3, 4)] == [3, 4]
    assert count_beside(tmp_path, "data", "two", MOMENTS[:1]) == 5
    assert count_beside(tmp_path, "other", "one", MOMENTS[:1]) == 1
    assert count_beside(tmp_path, "data", "one", MOMENTS[:4]) == 5
    assert is_counted_beside(tmp_path, "data")


def test_two_openings_in_one_second_are_two(tmp_path: Path) -> None:
    """The number of a sweep's opening tells them apart."""
    assert count_beside(tmp_path, "data", "one", [MOMENTS[0], MOMENTS[0]]) == 2


def test_sweeps_that_open_at_the_same_time_are_all_counted(tmp_path: Path) -> None:
    """No lock is needed, and none is lost."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: count_beside(tmp_path, "data", f"sweep{n}", MOMENTS), range(32)))
    assert count_beside(tmp_path, "data", "last", MOMENTS[:1]) == 32 * len(MOMENTS) + 1


def test_what_is_in_a_file_does_not_matter(tmp_path: Path) -> None:
    """Emptied, cut off or overwritten it still says that somebody looked."""
    count_beside(tmp_path, "data", "one", MOMENTS[:2])
    for file in (tmp_path / FOLDER / "data").iterdir():
        file.write_bytes(b"\xff{")
    assert count_beside(tmp_path, "data", "two", MOMENTS[:1]) == 3


def test_a_place_that_cannot_be_written_ends_no_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its own count stands, and it is said that the others' is unknown."""
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    assert count_beside(tmp_path, "data", "one", MOMENTS[:1]) is None
    assert "not noted beside the sweeps" in caplog.text


def test_a_place_that_can_only_be_read_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is there and this opening, which is not noted; those that were noted before count once."""
    count_beside(tmp_path, "data", "one", MOMENTS[:2])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    assert count_beside(tmp_path, "data", "two", MOMENTS[:1]) == 3
    assert count_beside(tmp_path, "data", "one", MOMENTS[:3]) == 3
    assert "No space left" in caplog.text
    assert len(list((tmp_path / FOLDER / "data").iterdir())) == 2


def test_openings_in_words() -> None:
    """One number where both are the same, and what is not known is not told."""
    told = {
        Openings(1): "opened once by this sweep",
        Openings(1, 1): "opened once",
        Openings(2, 2): "opened 2 times",
        Openings(1, 3): "opened once by this sweep, 3 times in all by the sweeps here",
        Openings(None, 3): "opened 3 times in all here",
    }
    assert {openings: str(openings) for openings in told} == told
    assert [openings.most for openings in told] == [1, 1, 2, 3, 3]
    assert Openings().most == 0
    assert Openings.of(Openings(1, 3).as_dict()) == Openings(1, 3)
    assert Openings.of({"test_openings": 2}) == Openings(2)
