"""Presets with members: what they may say, and that each member is fed its own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from chronotune import members
from chronotune.config.load import dump, load_model
from chronotune.config.model import ModelPreset
from chronotune.errors import ChronotuneError, InputError
from chronotune.forecaster import predict_windows
from chronotune.pretrained import load_model as load_weights
from engine_parts import ALL, HORIZON, WINDOWS, small_model, small_panel
from sweep_parts import small_recipe

TWO: list[dict[str, Any]] = [
    {"folder": ".", "weight": 0.75, "context_length": 64, "covariates": list(ALL)},
    {"folder": "members/other", "weight": 0.25, "context_length": 32},
]


def preset(folder: Path | str = "nowhere", changed: list[dict[str, Any]] = TWO) -> ModelPreset:
    """A blend of two."""
    return ModelPreset.model_validate(
        {"name": "two", "weights": str(folder), "max_context_length": 64, "members": changed}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both models of it on disk."""
    for seed, place in enumerate((tmp_path, tmp_path / "members/other")):
        small_model(seed=seed).save_pretrained(place)
        alone = ModelPreset(name="other", weights=".", max_context_length=64)
        (place / "preset.yaml").write_text(dump(alone if seed else preset(".")))
    return tmp_path


def test_a_blend_is_the_weighted_mean_of_its_members(folder: Path) -> None:
    """Each with its own context and covariates, whatever is asked for; a model alone is fed as asked."""
    panel, loaded = small_panel(), load_model(folder)
    parts = [
        predict_windows(load_weights(one), panel, WINDOWS, context_length=context, horizon=HORIZON, covariates=shown)
        for one, context, shown in (
            (members.preset_of(loaded, loaded.members[0]), 64, ALL),
            (load_model(folder / "members/other"), 32, ()),
        )
    ]
    asked: dict[str, Any] = {"context_length": 48, "horizon": HORIZON, "covariates": ["hour"]}
    got = members.predict(loaded, panel, WINDOWS, **asked)
    np.testing.assert_allclose(got, np.sort(0.75 * parts[0] + 0.25 * parts[1], axis=1), rtol=1e-5, atol=1e-5)
    one = loaded.model_copy(update={"members": []})
    alone = members.predict(one, panel, WINDOWS, **asked)
    np.testing.assert_array_equal(alone, predict_windows(load_weights(one), panel, WINDOWS, **asked))


def test_a_member_that_is_missing_or_changed_is_told(folder: Path) -> None:
    """Its preset is looked for below the blend's weights; its weights must be those that it names."""
    asked: dict[str, Any] = {"context_length": 48, "horizon": HORIZON, "covariates": []}
    place = folder / "members/other/preset.yaml"
    place.write_text(place.read_text() + f"revision: {'a' * 64}\n")
    with pytest.raises(ChronotuneError, match="must have the SHA-256"):
        members.predict(load_model(folder), small_panel(), WINDOWS, **asked)
    place.unlink()
    with pytest.raises(InputError, match="members/other"):
        members.predict(load_model(folder), small_panel(), WINDOWS, **asked)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 0.3}, "must have weights that add up to 1, but they make 1.05"),
        ({"weight": -0.25}, "greater than 0"),
        ({"folder": "../other"}, "must lie below the preset's weights, but is '../other'"),
        ({"folder": "/models/other"}, "must lie below the preset's weights"),
    ],
)
def test_members_make_a_whole(changes: dict[str, Any], words: str) -> None:
    """Weights are shares, and an export stands alone: no member lies elsewhere."""
    with pytest.raises(ValidationError, match=words):
        preset(changed=[TWO[0], {**TWO[1], **changes}])


def test_a_blend_is_not_fine_tuned() -> None:
    """Which of its models would it be?"""
    with pytest.raises(ValidationError, match="must be one model to be fine-tuned, but two is a blend of 2"):
        small_recipe(model=preset().model_dump())
