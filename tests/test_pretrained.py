"""Loading a model: bit by bit what was saved, or one line that says what is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from chronotune.config.model import ModelPreset
from chronotune.errors import ChronotuneError
from chronotune.pretrained import load_model
from engine_parts import small_model


def preset(weights: Path | str, **changes: Any) -> ModelPreset:
    """A preset of these weights."""
    return ModelPreset(**{"name": "m", "weights": str(weights), "max_context_length": 128, **changes})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the small model."""
    folder = tmp_path / "model"
    small_model().save_pretrained(folder)
    return folder


def test_load_model_from_a_folder(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The weights come back bit by bit, in evaluation mode, and nothing is printed."""
    import torch

    digest = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    capfd.readouterr()
    model = load_model(preset(saved, revision=digest))
    assert capfd.readouterr() == ("", "")
    original = small_model().state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in model.state_dict().items())
    assert model.state_dict().keys() == original.keys()
    assert not model.training
    assert model.dtype == torch.float32


def _drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _other_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["T5ForConditionalGeneration"]}))


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_ff": 96}))


def _one_layer_more(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_layers": 3}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_weights, "lacks model.safetensors"),
        (_truncate, "cannot load"),
        (_other_architecture, "must be a Chronos-2 model"),
        (_no_json, "must be a Chronos-2 model"),
        (_adapter, "holds a LoRA adapter"),
        (_other_shape, "do not fit its config.json"),
        (_one_layer_more, "do not fit its config.json"),
    ],
)
def test_unusable_folders(saved: Path, damage: Any, message: str) -> None:
    """Each fault has one line that names it; random weights are never filled in."""
    damage(saved)
    with pytest.raises(ChronotuneError, match=message) as caught:
        load_model(preset(saved))
    assert "\n" not in str(caught.value)


def test_other_weights_than_the_revision(saved: Path) -> None:
    """A folder's revision is the SHA-256 of its weights."""
    with pytest.raises(ChronotuneError, match="must have the SHA-256 abc"):
        load_model(preset(saved, revision="abc"))


def test_preset_promises_more_context_than_the_weights_take(saved: Path) -> None:
    """Found when loading, not in a trial."""
    with pytest.raises(ChronotuneError, match="max_context_length must not exceed the 128"):
        load_model(preset(saved, max_context_length=8192))


def test_missing_folder(tmp_path: Path) -> None:
    """A path is not looked for on the Hub."""
    with pytest.raises(ChronotuneError, match="folder or a Hugging Face id"):
        load_model(preset(tmp_path / "gone"))


def test_no_network_and_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: what was looked for, why it failed, and the ways out."""

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("cannot reach the Hub\nlong story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.model_info", offline)
    with pytest.raises(ChronotuneError) as caught:
        load_model(preset("amazon/chronos-2", revision="0123abc"))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("amazon/chronos-2", "0123abc", "cannot reach the Hub", "hf download", "HF_HOME", "model=tiny"):
        assert part in message


def test_cached_model_needs_no_network(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned revision is looked up in the cache first."""
    calls = []

    def cached(repository: str, **options: Any) -> str:
        calls.append((repository, options["revision"], options["local_files_only"]))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    load_model(preset("amazon/chronos-2", revision="0123abc"))
    assert calls == [("amazon/chronos-2", "0123abc", True)]
