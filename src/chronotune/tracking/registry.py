"""MLflow's model registry: a sweep's winner becomes a new version when its verdict ships it, once."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chronotune import __version__
from chronotune.config.load import load_model
from chronotune.config.model import Member, ModelPreset, Serving
from chronotune.config.recipe import Tracking
from chronotune.errors import ChronotuneError
from chronotune.gate import decision_of, is_shipped
from chronotune.metrics import QUANTILES
from chronotune.openings import Openings
from chronotune.study import Reading
from chronotune.tracking.content import sweep_id
from chronotune.tracking.runs import Runs, patient

CODE = Path(__file__).parents[1] / "pyfunc.py"
"""What MLflow runs when the model is loaded; never imported here."""
_SWEEP, _SHA = "chronotune.sweep", "chronotune.sha256"


class Registry:
    """The registered model that a recipe's tracking names, beside one sweep's runs."""

    def __init__(self, runs: Runs, tracking: Tracking) -> None:
        self._runs, self._tracking = runs, tracking
        self._there: dict[str, str] = {}

    def publish(self, reading: Reading, directory: Path) -> str | None:
        """Make the winner a version, if a registry is wanted, the verdict ships it, and it is none yet.

        Returns:
            The number of its version, old or new; None when it is none.

        Raises:
            ChronotuneError: The winner's weights have changed since its evaluation.
        """
        won, name = reading.attributes.get("winner") or {}, self._tracking.registry
        if name is None or not is_shipped(reading.evaluation):
            return None
        if won["sha256"] not in self._there:
            tags = version_tags(reading)
            self._there[won["sha256"]] = self._found(name, tags) or self._create(name, tags, directory / "winner")
        return self._there[won["sha256"]]

    def _found(self, name: str, tags: Mapping[str, str]) -> str | None:
        versions = self._runs.client.search_model_versions(f"name = '{name}'")
        same = (v for v in versions if all(v.tags.get(key) == tags[key] for key in (_SWEEP, _SHA)))
        return next((str(version.version) for version in same), None)

    def _create(self, name: str, tags: Mapping[str, str], winner: Path) -> str:
        uploaded = self._tracking.upload_weights
        wish, weights = _wish(winner, tags[_SHA], uploaded), winner if uploaded else None
        client, run = self._runs.client, self._runs.parent
        path = f"model-{tags[_SHA][:12]}"
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder) / "model", wish, weights)
            with patient():
                client.log_artifacts(run, str(Path(folder) / "model"), path)
        _ensure(client, name)
        source = f"{client.get_run(run).info.artifact_uri}/{path}"
        return str(client.create_model_version(name, source, run, tags=dict(tags)).version)


def version_tags(reading: Reading) -> dict[str, str]:
    """What a version says of itself: verdict, gain and its 95% interval, the sweep and trial, the weights' SHA-256."""
    assert reading.evaluation is not None
    verdict, won = reading.evaluation["verdict"], reading.attributes["winner"]
    told = {
        "verdict": decision_of(reading.evaluation),
        "sentence": verdict["sentence"],
        "objective": verdict["objective"],
        **{key: f"{verdict[key]:.6g}" for key in ("gain", "low", "high")},
        **Openings.of(reading.evaluation).as_dict(),
        "sweep": sweep_id(reading),
        "name": reading.name,
        "trial": won["number"],
        "sha256": won["sha256"],
    }
    return {f"chronotune.{key}": str(value) for key, value in told.items() if value is not None}


def _wish(folder: Path, sha256: str, uploaded: bool) -> dict[str, Any]:
    """What `pyfunc.Forecaster` is told: the preset, the weights' place unless they go along, and all their hashes."""
    preset = load_model(folder / "preset.yaml")
    if preset.revision != sha256:
        raise ChronotuneError(
            f"the winner in {folder} must have the SHA-256 {sha256[:12]}... that was evaluated, but its preset names "
            f"{(preset.revision or 'none')[:12]}... Evaluate it again with `chronotune evaluate {folder.parent}`"
        )
    members = [_named(folder, member) for member in preset.members]
    told = preset.model_copy(update={"weights": ".", "members": members}).model_dump(mode="json", exclude_none=True)
    return {"preset": told, "sha256": sha256, **({} if uploaded else {"weights": folder.resolve().as_uri()})}


def _named(folder: Path, member: Member) -> Member:
    """A member with the revision of its weights: its folder may change, what was registered does not."""
    return member.model_copy(update={"revision": load_model(folder / member.folder / "preset.yaml").revision})


def _save(to: Path, wish: Mapping[str, Any], weights: Path | None) -> None:
    import mlflow

    serving = ModelPreset.model_validate(wish["preset"]).serving
    assert serving is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example was not provided")  # the signature is written out
        mlflow.pyfunc.save_model(
            to,
            python_model=str(CODE),
            model_config=dict(wish),
            artifacts={"weights": str(weights)} if weights else None,
            signature=signature(serving),
            pip_requirements=[f"chronotune=={__version__}"],  # else MLflow would load the model to find out
        )


def signature(serving: Serving) -> Any:
    """Columns in and out, and the horizon as a parameter.

    What comes in may have any type: MLflow takes no int64 or bool for a double, no number for a string and no time
    zone, all of which a file can hold; `chronotune.forecast` checks the values itself.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    identity = [serving.id] if serving.id else []
    given = (*identity, serving.time, serving.target, *serving.past_only, *serving.known_future)
    made = ["forecast", *(f"{level:g}" for level in QUANTILES)]
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), name) for name in given]),
        outputs=Schema(
            [
                *(ColSpec(DataType.string, name) for name in identity),
                ColSpec(DataType.datetime, serving.time),
                *(ColSpec(DataType.double, name) for name in made),
            ]
        ),
        params=ParamSchema([ParamSpec("horizon", DataType.long, serving.horizon)]),
    )


def _ensure(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
