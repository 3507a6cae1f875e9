"""The benchmarks of the engine and of forecasting: they run, print one object, and measure what they say."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from chronotune.data.batches import collate
from engine_parts import small_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch, steel_csv: Path) -> Any:
    """Imports a file of benchmarks/, which are no part of the package, with a small model and the steel data."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("CHRONOTUNE_STEEL_CSV", str(steel_csv))
    monkeypatch.setattr("chronotune.forecaster.load_model", lambda preset: small_model())
    return importlib.import_module


def test_engine(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object, with a positive figure for each size and part."""
    parts = ["steps", "whole", "batches", "outside", "reuse"]
    assert part("engine").main(["--quick", "--json", "--rounds", "2", "--only", *parts]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["train_ratio"]) == ["w2_r1_c64", "w2_r10_c64"]
    for name, ratio in result["train_ratio"].items():
        seconds = result["train_seconds"][name]
        assert ratio == pytest.approx(seconds["library"] / seconds["ours"])
        assert ratio > 0
    assert result["end_to_end"]["ratio"] > 0
    assert 0 < result["dataset"]["share_of_step"]["ours"] < 1
    assert 0 < result["outside_share"] < 1
    assert 0 < result["reuse"]["before_first_step"] < result["reuse"]["seconds"]
    assert "memory" not in result


def test_the_sizes_that_the_issue_of_the_engine_names(part: Any) -> None:
    """Without --quick: windows 8, 32, 64, rows 1 and 10, context 512 and 1024; ten years of quarter hours."""
    full = part("engine").FULL
    assert (full.windows, full.rows, full.contexts) == ((8, 32, 64), (1, 10), (512, 1024))
    assert full.batch == ((26, 10, 512), 350_400)
    assert str(part("against_fit").Shape(32, 10, 512)) == "w32_r10_c512"


def test_both_train_on_the_same_shapes(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each turn the library's model and ours get as many windows and rows, in training mode, with dropout on."""
    from chronos.chronos2.model import Chronos2Model

    module, seen, forward = part("against_fit"), list[tuple[int, int, bool, float]](), Chronos2Model.forward

    def watched(self: Any, context: Any, group_ids: Any = None, **options: Any) -> Any:
        seen.append((len(context), int(group_ids.max()) + 1, self.training, self.config.dropout_rate))
        return forward(self, context, group_ids=group_ids, **options)

    monkeypatch.setattr(Chronos2Model, "forward", watched)
    panel = part("readers").steel_measurements().until(2000)
    pair = module.steps(small_model(), panel, module.Shape(3, 4, 64), 2)
    assert seen == [(12, 3, True, 0.1)] * 6
    assert pair.rounds == 2


def test_outside_is_what_no_part_of_a_step_takes(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow way to make batches raises the share."""
    module, shapes = part("anatomy"), part("against_fit")
    panel = part("readers").steel_measurements().until(2000)
    before = module.outside_share(small_model(), panel, shapes.Shape(2, 1, 64), 1)

    def slow(*arguments: Any, **options: Any) -> Any:
        module.time.sleep(0.2)
        return collate(*arguments, **options)

    monkeypatch.setattr("chronotune.finetune.collate", slow)
    after = module.outside_share(small_model(), panel, shapes.Shape(2, 1, 64), 1)
    assert before < 0.5 < after < 1


def test_forecast(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object; the same forecasts as the library's, to a millionth of the target's spread."""
    assert part("forecast").main(["--quick", "--json", "--rounds", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["windows"], result["rows"]) == (3, 10)
    assert result["ratio"] > 0
    assert result["ratio_one_at_a_time"] > 0
    assert result["max_abs_diff"] < 1e-5
    assert set(result["windows_per_second"]) == {"ours", "library", "one_at_a_time"}


def test_tables(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json a line for each figure."""
    assert part("forecast").main(["--quick", "--rounds", "1"]) == 0
    assert part("engine").main(["--quick", "--rounds", "1", "--only", "steps", "batches"]) == 0
    table = capsys.readouterr().out
    for row in ("one window at a time", "Chronos2Pipeline.predict", "2 windows x 10 rows, C=64", "one series of 4,000"):
        assert row in table


def test_a_ratio_is_of_medians(part: Any) -> None:
    """One slow round of five changes nothing."""
    pair = part("sidebyside").Pair.of([1.0, 1.0, 50.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0])
    assert (pair.ratio, pair.rounds) == (2.0, 5)


def test_turns_alternate(part: Any) -> None:
    """One of each in turn, and one round more than is counted."""
    calls: list[str] = []
    part("sidebyside").alternate(lambda: calls.append("ours"), lambda: calls.append("theirs"), 2)
    assert calls == ["ours", "theirs"] * 3


def test_without_the_module_memory_is_skipped_with_a_sentence(
    part: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other parts of the engine are measured all the same."""
    engine = part("engine")
    monkeypatch.setattr(engine.memory_steps.importlib.util, "find_spec", lambda name: None)
    assert engine.main(["--only", "memory"]) == 0
    assert "memory is not measured: this version of chronotune does not predict memory" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_steps_of_a_random_model_are_measured(part: Any) -> None:
    """In a process of its own: more bytes than a copy of the weights, its gradients and its optimizer's state."""
    module: ModuleType = part("memory_steps")
    found = module.run("small", "full", 10**10)
    assert found["steps"] == 2
    assert found["measured"] > 4 * 4 * found["parameters"]
    assert module.run("none", "full")["failed"].startswith("memory_steps.py: error: argument --core: invalid choice")


def test_the_shape_of_the_large_model(part: Any) -> None:
    """As many parameters as amazon/chronos-2: 120 million."""
    import torch

    with torch.device("meta"):
        model = part("memory_steps").random_model("120m")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 119
    assert model.config.dropout_rate > 0


def test_windows_as_dictionaries(part: Any) -> None:
    """The library gets what ours sees: past of all rows, future of the calendar only."""
    panel = part("readers").steel_measurements()
    assert (len(panel.past_only), len(panel.known_future)) == (5, 4)
    window = part("evaluation_sets").rolling(panel, 96)[0]
    task = part("forecast").as_dictionary(panel, window, 64)
    assert [name.split(" ", 1)[1] for name in task["future_covariates"]] == list(panel.known_future)
    assert [name.split(" ", 1)[1] for name in sorted(task["past_covariates"])] == list(panel.covariates)
    assert np.array_equal(task["target"], panel.series[0].target[window.origin - 64 : window.origin])
    assert {len(values) for values in task["past_covariates"].values()} == {64}
