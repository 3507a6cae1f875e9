"""Categories become numbers that training alone decides."""

from __future__ import annotations

import polars as pl
import pytest

from chronotune.config.model import Encoding
from chronotune.data import encode
from chronotune.errors import InputError

TRAIN = pl.DataFrame({"y": [1.0] * 30 + [4.0] * 10 + [None], "kind": ["a"] * 30 + ["b"] * 10 + ["c"], "x": 0.0})


def test_mean_target_pulled_to_the_overall_mean() -> None:
    """30 rows of 1 and 10 of 4 have mean 1.75, which counts as 10 more rows in each category."""
    code = encode.learn(TRAIN, "y", ["kind"])["kind"]
    assert code.values == pytest.approx({"a": (30 + 17.5) / 40, "b": (40 + 17.5) / 20})
    assert code.unseen == pytest.approx(1.75)


def test_apply() -> None:
    """Unseen categories become the training mean, missing ones stay missing, other columns pass."""
    code = Encoding(values={"a": 1.5, "b": 3.0}, unseen=2.0)
    frame = pl.DataFrame({"kind": ["b", "new", None, "a"], "x": [1.0, 2.0, 3.0, 4.0]})
    assert encode.apply(frame, {"kind": code}).to_dict(as_series=False) == {
        "kind": [3.0, 2.0, None, 1.5],
        "x": [1.0, 2.0, 3.0, 4.0],
    }


def test_serving_with_enums_and_empty_encodings() -> None:
    """Other string types work, and so does an encoding without any category."""
    frame = pl.DataFrame({"kind": pl.Series(["a", "b"], dtype=pl.Categorical)})
    assert encode.apply(frame, {"kind": Encoding(values={}, unseen=2.0)})["kind"].to_list() == [2.0, 2.0]


def test_numbers_in_place_of_categories() -> None:
    """They are refused: they would all count as unseen."""
    with pytest.raises(InputError, match="kind: held categories in training, but it holds numbers here"):
        encode.apply(pl.DataFrame({"kind": [1.0]}), {"kind": Encoding(values={"1": 1.0}, unseen=2.0)})


def test_only_text_is_categorical() -> None:
    """Numeric columns pass through."""
    assert encode.categorical(TRAIN, ["x", "kind"]) == ["kind"]
