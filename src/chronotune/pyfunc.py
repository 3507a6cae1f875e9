"""A registered model as MLflow loads it: `mlflow.pyfunc.load_model` runs this file's text, with chronotune installed.

Nothing is pickled: the model's folder holds this file, the preset, and where the weights are with their SHA-256; with
`tracking.upload_weights` the weights too.
"""

from __future__ import annotations

from typing import Any

import pandas as pd  # MLflow reads the hint of `predict`
import polars as pl
from mlflow.artifacts import download_artifacts
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from chronotune.config.model import ModelPreset
from chronotune.forecaster import locate
from chronotune.members import preset_of
from chronotune.serving import forecast


class Forecaster(PythonModel):  # type: ignore[misc]  # mlflow ships no complete types
    """Forecasts every series of a table from the end of its target, as `chronotune.forecast` does."""

    def load_context(self, context: Any) -> None:
        """Find the weights, of a blend those of all members, and refuse others than those that were registered.

        They may have moved: `load_model(uri, model_config={"weights": FOLDER})` says where to.

        Raises:
            ChronotuneError: The weights are not there, or have another SHA-256.
        """
        told = context.model_config
        folder = (context.artifacts or {}).get("weights") or download_artifacts(artifact_uri=told["weights"])
        self.preset = ModelPreset.model_validate({**told["preset"], "weights": folder, "revision": told["sha256"]})
        locate(self.preset)
        for member in self.preset.members:
            locate(preset_of(self.preset, member))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Quantiles by time; `params` may hold the horizon."""
        horizon = (params or {}).get("horizon")
        return forecast(self.preset, pl.from_pandas(model_input), horizon).to_pandas()


set_model(Forecaster())
