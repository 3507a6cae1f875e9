"""The model registry: what ships becomes a version, once; loaded by MLflow it forecasts, and only with its weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from tracking_parts import Store
from typer.testing import CliRunner

import chronotune
from chronotune.checkpoint import sha256
from chronotune.cli import app
from chronotune.config.load import dump, load_model
from chronotune.config.model import Member, ModelPreset, Serving
from chronotune.config.recipe import Tracking
from chronotune.data.sources import solar
from chronotune.errors import ChronotuneError
from chronotune.results import registered
from chronotune.study import Study
from chronotune.tracking import Mirror, mirror
from chronotune.tracking.registry import _save
from chronotune.tracking.runs import patient
from sweep_parts import judged_sweep

TINY = Path(__file__).parents[2] / "models" / "tiny"
SHIP = "ship the challenger"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty MLflow database."""
    return Store(tmp_path / "store")


def published(store: Store, sweep: Path, *, upload: bool = False) -> list[Any]:
    """The versions of the model `plant` once the sweep was mirrored there, twice."""
    tracking = Tracking(uri=store.uri, registry="plant", upload_weights=upload)
    reports = [mirror(sweep, tracking) for _ in range(2)]
    assert [report.trouble for report in reports] == [None, None]
    versions = list(store.client.search_model_versions("name = 'plant'"))
    told: list[str | None] = [str(version.version) for version in versions]
    assert all(report.version in (told or [None]) for report in reports)
    return versions


def loaded(store: Store, version: Any, **how: Any) -> Any:
    """A version as `mlflow.pyfunc.load_model` gives it."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    try:
        return mlflow.pyfunc.load_model(f"models:/plant/{version.version}", **how)
    finally:
        mlflow.set_tracking_uri(None)


def hours() -> pl.DataFrame:
    """Ten days of solar irradiance, and a day of what is known in advance."""
    frame = solar().head(240 + 24).select("time", "ghi", "etr")
    return frame.with_columns(ghi=pl.when(pl.int_range(pl.len()) < 240).then("ghi"))


def test_what_ships_is_registered_and_forecasts(tmp_path: Path, store: Store) -> None:
    """One version with its verdict; the weights stay where they are, and another file there is refused by its hash."""
    sweep = judged_sweep(tmp_path / "one", SHIP, TINY)
    [version] = published(store, sweep)
    told = {key.removeprefix("chronotune."): value for key, value in version.tags.items()}
    assert (told["verdict"], told["gain"], told["low"], told["high"]) == (SHIP, "0.02", "0.01", "0.03")
    assert told["sha256"] == chronotune.config.load.load_model(sweep / "winner").revision
    assert version.run_id == store.runs()["small"].info.run_id
    files = {path.name for path in store.file.parent.rglob("model-*/*")}
    assert "pyfunc.py" in files
    assert not [path for path in store.file.parent.rglob("*") if path.suffix in {".pkl", ".safetensors"}]
    model = loaded(store, version)
    assert [column.name for column in model.metadata.signature.inputs.inputs] == ["time", "ghi", "etr"]
    forecast = model.predict(hours().to_pandas(), params={"horizon": 12})
    ours = chronotune.forecast(sweep, hours(), 12)
    assert forecast["forecast"].tolist() == ours["forecast"].to_list()
    assert forecast["time"].tolist() == ours["time"].to_list()
    assert len(model.predict(hours().to_pandas())) == 24
    (sweep / "winner").rename(tmp_path / "moved")
    moved = loaded(store, version, model_config={"weights": str(tmp_path / "moved")})
    assert len(moved.predict(hours().to_pandas())) == 24
    weights = tmp_path / "moved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ChronotuneError, match="must have the SHA-256"):
        loaded(store, version, model_config={"weights": str(tmp_path / "moved")})


def panel_of(times: Any) -> Any:
    """Two plants of ten days and a day to forecast: no column has the type that MLflow would have wanted."""
    import pandas as pd

    frame, hour = pd.DataFrame({"time": times}), np.arange(264)
    frame = frame.assign(
        load=np.where(hour < 240, 50.0 + hour % 24, np.nan), nsm=3600 * (hour % 24), open=hour % 24 > 6
    )
    return pd.concat([frame.assign(plant=plant) for plant in (1, 2)], ignore_index=True)


@pytest.mark.parametrize("kind", ["naive", "zoned", "text"])
def test_a_version_takes_the_types_that_files_have(tmp_path: Path, kind: str) -> None:
    """Whole numbers, truths, ids that are numbers, time zones, and times as the text that `pandas.read_csv` leaves."""
    import mlflow
    import pandas as pd

    columns = {"time": "time", "target": "load", "id": "plant", "past_only": ["open"], "known_future": ["nsm"]}
    encodings = {"open": {"values": {"false": 53.0, "true": 65.0}, "unseen": 62.0}}
    serving = Serving.model_validate({"horizon": 24, "context_length": 96, **columns, "encodings": encodings})
    preset = ModelPreset(name="plant", weights=".", max_context_length=96, serving=serving)
    told = {"preset": preset.model_dump(mode="json", exclude_none=True), "sha256": sha256(TINY / "model.safetensors")}
    _save(tmp_path / "model", {**told, "weights": TINY.as_uri()}, None)
    naive = pd.date_range("2026-01-01", periods=264, freq="h")
    times = {"naive": naive, "zoned": naive.tz_localize("Asia/Kolkata"), "text": naive.astype(str)}[kind]
    model, data = mlflow.pyfunc.load_model(str(tmp_path / "model")), panel_of(times)
    forecast = model.predict(data)
    assert list(forecast["plant"]) == ["1"] * 24 + ["2"] * 24
    ours = chronotune.forecast(preset.model_copy(update={"weights": str(TINY)}), pl.from_pandas(data))
    assert forecast["forecast"].tolist() == ours["forecast"].to_list()


def test_weights_are_uploaded_when_asked(tmp_path: Path, store: Store) -> None:
    """Then the version needs nothing of the sweep's folder."""
    sweep = judged_sweep(tmp_path / "one", SHIP, TINY)
    [version] = published(store, sweep, upload=True)
    sweep.rename(tmp_path / "gone")
    assert len(loaded(store, version).predict(hours().to_pandas())) == 24


def test_another_member_of_a_blend_is_refused(tmp_path: Path, store: Store) -> None:
    """A blend's members are registered with their hashes, whatever a folder says of itself later."""
    sweep = judged_sweep(tmp_path / "one", SHIP, TINY)
    winner, beside = sweep / "winner", sweep / "winner" / "members" / "zero-shot"
    beside.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(TINY / name, beside)
    alone = ModelPreset(name="tiny", weights=".", max_context_length=96, revision=sha256(TINY / "model.safetensors"))
    (beside / "preset.yaml").write_text(dump(alone))
    fed = {"weight": 0.5, "context_length": 96}
    members = [Member.model_validate({**fed, "folder": folder}) for folder in (".", "members/zero-shot")]
    (winner / "preset.yaml").write_text(
        dump(load_model(winner).model_copy(update={"weights": ".", "members": members}))
    )
    [version] = published(store, sweep)
    model = loaded(store, version)
    assert len(model.predict(hours().to_pandas())) == 24
    (beside / "model.safetensors").write_bytes(b"other weights")
    other = sha256(beside / "model.safetensors")
    (beside / "preset.yaml").write_text(dump(alone.model_copy(update={"revision": other})))
    refused = r"members/zero-shot/model\.safetensors must have the SHA-256"
    with pytest.raises(ChronotuneError, match=refused):
        loaded(store, version)
    with pytest.raises(ChronotuneError, match=refused):
        model.predict(hours().to_pandas())


def test_who_takes_the_weights_away_is_told(tmp_path: Path) -> None:
    """By `rm` and an extension, where a version may load them from the folder; not where they were uploaded."""
    sweep = judged_sweep(tmp_path / "one", SHIP)
    study = Study.reopen(sweep)
    recipe = study.attribute("recipe")
    for tracking, told in (
        ({"enabled": True, "registry": "plant"}, True),
        ({"enabled": True, "registry": "plant", "upload_weights": True}, False),
        ({"enabled": False, "registry": "plant"}, False),
        ({"enabled": True}, False),
    ):
        study.note("recipe", {**recipe, "tracking": tracking})
        assert (registered(sweep) is not None) == told
    study.note("recipe", {**recipe, "tracking": {"enabled": True, "registry": "plant"}})
    for command in (["rm", str(sweep)], ["rm", str(sweep), "--yes"]):
        assert "versions of 'plant' in MLflow" in CliRunner().invoke(app, command, input="n\n").output
    assert not sweep.exists()


def test_uploads_have_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a gigabyte takes longer than a metric: both the last wait and each request; what a user set holds."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    for given, meant in (("10", "600"), ("77", "77")):
        monkeypatch.setenv(name, given)
        with patient():
            assert os.environ[name] == meant
        assert os.environ[name] == given
    uploading = Mirror(tmp_path, Tracking(uri=f"sqlite:///{tmp_path}/a.db", registry="plant", upload_weights=True))
    plain = Mirror(tmp_path, Tracking(uri=f"sqlite:///{tmp_path}/a.db"))
    assert (uploading._patience, plain._patience) == (900, 30)


@pytest.mark.parametrize("decision", ["keep zero-shot", "not enough test windows", None])
def test_what_does_not_ship_is_not_registered(tmp_path: Path, store: Store, decision: str | None) -> None:
    """The gate is the verdict; there is not even a registered model."""
    assert published(store, judged_sweep(tmp_path / "one", decision)) == []
    assert store.client.search_registered_models() == []


def test_a_changed_winner_is_told(tmp_path: Path, store: Store) -> None:
    """What was not evaluated is not registered, and the mirror says why."""
    sweep = judged_sweep(tmp_path / "one", SHIP)
    preset = sweep / "winner" / "preset.yaml"
    preset.write_text(preset.read_text().replace("revision: ", "revision: f"))
    tracking = Tracking(uri=store.uri, registry="plant")
    assert "that was evaluated" in (mirror(sweep, tracking).trouble or "")


def test_weights_are_uploaded_to_a_registry_only() -> None:
    """Otherwise the key would mean nothing."""
    with pytest.raises(ValidationError, match=r"tracking\.registry names no model"):
        Tracking(upload_weights=True)
