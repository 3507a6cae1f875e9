"""Checkpoints are complete or absent, and damage is found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from chronotune import checkpoint
from chronotune.checkpoint import META, STATE, WEIGHTS, Checkpoint
from chronotune.errors import ChronotuneError, StorageError


def example(value: float = 1.0) -> Checkpoint:
    """A checkpoint with one weight."""
    weights = {"w": torch.full((3,), value)}
    return Checkpoint(weights, {"random": {"cpu": torch.get_rng_state()}}, {"windows_seen": 8})


def test_round_trip(tmp_path: Path) -> None:
    """What was written comes back, and the digest of the weights is at hand without reading them."""
    folder = tmp_path / "a" / "8"
    checkpoint.write(folder, example())
    back = checkpoint.read(folder)
    assert torch.equal(back.weights["w"], torch.ones(3))
    assert torch.equal(back.state["random"]["cpu"], torch.get_rng_state())
    assert back.meta["windows_seen"] == 8
    assert (
        checkpoint.read_meta(folder)["sha256"][WEIGHTS] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    )
    assert [path.name for path in folder.parent.iterdir()] == ["8"]


def test_others_may_read_what_they_may_read_elsewhere(tmp_path: Path) -> None:
    """Safetensors makes files for their owner alone, also where the process's mask gives them to a group."""
    before = os.umask(0o027)
    try:
        checkpoint.write(tmp_path / "3", example())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "3").iterdir()} == {0o640}


def test_replaces_a_checkpoint_of_the_same_name(tmp_path: Path) -> None:
    """A worker that died between writing and reporting writes again."""
    for value in (1.0, 2.0):
        checkpoint.write(tmp_path / "8", example(value))
    assert checkpoint.read(tmp_path / "8").weights["w"][0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["8"]


def test_does_not_replace_anything_else(tmp_path: Path) -> None:
    """A folder that holds no checkpoint stays as it is."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    with pytest.raises(ChronotuneError, match="must not replace"):
        checkpoint.write(tmp_path / "thesis", example())
    assert (tmp_path / "thesis" / "chapter").read_text() == "1"


def test_what_a_removal_left_is_replaced(tmp_path: Path) -> None:
    """A worker was killed while it removed a checkpoint, and trains to it again."""
    for missing in (META, WEIGHTS, STATE):
        checkpoint.write(tmp_path / "8", example())
        (tmp_path / "8" / missing).unlink()
        checkpoint.write(tmp_path / "8", example())
        assert checkpoint.read(tmp_path / "8").weights["w"][0] == 1


def test_a_device_that_fails_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    """It is the trial's: a sweep that halted for it would halt again when it is resumed."""

    class OfAFailedDevice:
        def detach(self) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    broken: Any = {"w": OfAFailedDevice()}
    with pytest.raises(RuntimeError, match="CUDA error"):
        checkpoint.write(tmp_path / "8", Checkpoint(broken, {}, {}))


def test_interrupted_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the writing, the old checkpoint is whole and no other appears."""
    checkpoint.write(tmp_path / "8", example(1.0))

    def stop(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "sha256", stop)
    for name in ("8", "16"):
        with pytest.raises(KeyboardInterrupt):
            checkpoint.write(tmp_path / name, example(2.0))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["8"]
    assert checkpoint.read(tmp_path / "8").weights["w"][0] == 1


def test_killed_while_writing(tmp_path: Path) -> None:
    """What a killed process left behind has no checkpoint's name, and the next write clears it."""
    left = tmp_path / ".8.partial"
    left.mkdir()
    (left / WEIGHTS).write_bytes(b"half")
    with pytest.raises(ChronotuneError, match="there is no checkpoint"):
        checkpoint.read(tmp_path / "8")
    checkpoint.write(tmp_path / "8", example())
    assert [path.name for path in tmp_path.iterdir()] == ["8"]


def test_weights_without_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state goes, also when an earlier try was killed half way; all the time the checkpoint can be read."""
    checkpoint.write(tmp_path / "8", example())

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for name, state in (("replace", True), ("unlink", False)):
        with monkeypatch.context() as patches:
            patches.setattr(Path, name, killed)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.drop_state(tmp_path / "8")
        found = checkpoint.read(tmp_path / "8")
        assert found.weights["w"][0] == 1
        assert bool(found.state) is state
    for _ in "twice":
        checkpoint.drop_state(tmp_path / "8")
        assert sorted(path.name for path in (tmp_path / "8").iterdir()) == [META, WEIGHTS]
        assert checkpoint.read(tmp_path / "8").meta["windows_seen"] == example().meta["windows_seen"]
    _flip(tmp_path / "8" / WEIGHTS)
    with pytest.raises(ChronotuneError, match="damaged"):
        checkpoint.read(tmp_path / "8")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
def test_damaged_files(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    """A file that was cut, changed or removed is found by its digest."""
    checkpoint.write(tmp_path / "8", example())
    damage(tmp_path / "8" / name)
    with pytest.raises(ChronotuneError, match="damaged") as caught:
        checkpoint.read(tmp_path / "8")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}'])
def test_damaged_meta(tmp_path: Path, text: str) -> None:
    """So is a meta file that is not what was written."""
    checkpoint.write(tmp_path / "8", example())
    (tmp_path / "8" / META).write_text(text)
    with pytest.raises(ChronotuneError, match="damaged"):
        checkpoint.read(tmp_path / "8")


def test_other_format(tmp_path: Path) -> None:
    """A later format is refused, not misread."""
    checkpoint.write(tmp_path / "8", example())
    meta = json.loads((tmp_path / "8" / META).read_text())
    (tmp_path / "8" / META).write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(ChronotuneError, match="must have format 1, but has 99"):
        checkpoint.read(tmp_path / "8")


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    """A state file that would run code is refused, with its digest in order."""
    checkpoint.write(tmp_path / "8", example())
    witness = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (witness,)

    torch.save({"optimizer": Attack()}, tmp_path / "8" / STATE)
    meta = json.loads((tmp_path / "8" / META).read_text())
    meta["sha256"][STATE] = checkpoint.sha256(tmp_path / "8" / STATE)
    (tmp_path / "8" / META).write_text(json.dumps(meta))
    with pytest.raises(ChronotuneError, match="damaged"):
        checkpoint.read(tmp_path / "8")
    assert not witness.exists()


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for what the system refuses, and nothing is left."""

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(StorageError, match="No space left on device"):
        checkpoint.write(tmp_path / "8", example())
    assert not list(tmp_path.iterdir())


def test_all_that_is_in_a_folder_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what lies deeper, as the members of a blend do."""
    synced: list[Path] = []
    monkeypatch.setattr(checkpoint, "_sync", synced.append)
    with checkpoint.appearing(tmp_path / "blend") as draft:
        (draft / "members/zero-shot").mkdir(parents=True)
        (draft / "members/zero-shot/model.safetensors").touch()
        (draft / "preset.yaml").touch()
        wanted = {draft, *draft.rglob("*")}
    assert len(wanted) == 5
    assert set(synced[:-1]) == wanted
    assert synced[-1] == tmp_path


def test_a_folder_that_must_be_new_is_never_replaced(tmp_path: Path) -> None:
    """Neither one that is there before, nor one that came while ours was being filled."""
    taken = tmp_path / "taken"

    def fill() -> None:
        with checkpoint.appearing(taken, replace=False) as draft:
            (draft / "ours").touch()
            taken.mkdir()
            (taken / "theirs").touch()

    for _ in range(2):
        with pytest.raises(ChronotuneError, match="must be new"):
            fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "theirs"]


def test_check_same_names_what_differs(tmp_path: Path) -> None:
    """Only the settings that differ, with both values."""
    checkpoint.check_same(tmp_path, {"a": 1, "b": 2}, {"a": 1, "b": 2})
    with pytest.raises(ChronotuneError, match=r"but b is 2 there and 3 here; c is None there and 4 here$"):
        checkpoint.check_same(tmp_path, {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
