"""The report: whole, readable, escaped, and honest about what is missing."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chronotune import sweep
from chronotune.cli import app
from chronotune.config.load import dump_recipe
from chronotune.data.prepare import load, trial_data
from chronotune.errors import ChronotuneError, InputError
from chronotune.noise import RungNoise
from chronotune.page import NAME, trials, write_report
from chronotune.page.html import Html, data, table, tag
from chronotune.page.trials import at_budget, importances, shared_budget, varied
from chronotune.page.words import moment
from chronotune.standalone import evaluation_of
from chronotune.study import Reader
from page_parts import NASTY, Page, evaluated, searched
from sweep_parts import ask, new_study, result, small_recipe

LIMIT = 8 * 2**20


def page_of(directory: Path) -> Page:
    """The report of a sweep, written and parsed."""
    return Page(write_report(directory).read_text(encoding="utf-8"))


def test_an_evaluated_sweep_misses_nothing(tmp_path: Path) -> None:
    """Verdict, all plots with their captions and words for those who cannot see them, and no element left open."""
    evaluated(tmp_path)
    page = page_of(tmp_path)
    assert page.open == []
    assert "Ship the tuned model" in page.text
    assert "12.0% better" in page.text
    missing = [one for one in page.all("p") if one.get("class") == "missing"]
    assert len(missing) == 2  # scripts, and finalists: there were none
    assert "No finalists were trained again" in page.text
    for title in (
        "Learning curves",
        "Which hyperparameters mattered",
        "Parallel coordinates",
        "Score by learning rate",
    ):
        assert title in page.text
    for title in ("A typical window", "The worst window", "Calibration", "Residuals", "What tuning saved each day"):
        assert title in page.text
    plots = [one for one in page.all("div") if one.get("class") == "plot"]
    assert len(plots) == len(page.plots) == len(page.all("figcaption")) >= 13
    assert all(len(str(one["aria-label"])) > 40 and one["role"] == "img" for one in plots)
    anchors = [one["id"] for _, one in page.elements if "id" in one]
    assert len(anchors) == len(set(anchors))
    assert {f"#{anchor}" for anchor in anchors} >= {one["href"] for one in page.all("a")}


def test_the_search_says_what_may_be_luck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What zero-shot scores however it is fed, and how far apart trials must be to differ."""
    evaluated(tmp_path)
    monkeypatch.setattr(sys.modules["chronotune.page.search"], "noise", lambda _: [RungNoise(27, 24, 3, 0.012, 1)])
    text = page_of(tmp_path).text
    assert "Zero-shot: sql of the untouched model by what it is fed" in text
    assert "Validation noise: on 24 origins these cannot be told from the best of as many windows: 1 of 2" in text
    assert "(about 1.20% would tell)." in text


def test_a_legend_names_each_line_once_and_says_which_are_hidden(tmp_path: Path) -> None:
    """A button for each name, a band's two edges together, and the traces that it names are there to be hidden."""
    evaluated(tmp_path)
    page = page_of(tmp_path)
    scripts = [one for one in page.all("script") if "data-for" in one]
    plots = {str(script["data-for"]): plot["data"] for script, plot in zip(scripts, page.plots, strict=True)}
    shown: dict[str, list[tuple[str, str]]] = {}
    for button in page.all("button"):
        traces = [plots[str(button["data-plot"])][int(number)] for number in str(button["data-traces"]).split()]
        assert len({trace["name"] for trace in traces}) == 1
        hidden = any(trace.get("visible") == "legendonly" for trace in traces)
        assert button["aria-pressed"] == str(not hidden).lower()
        shown.setdefault(str(button["data-plot"]), []).append((traces[0]["name"], str(button["data-traces"])))
    assert shown["plot-fan-typical"] == [
        ("90%", "0 1"),
        ("50%", "2 3"),
        ("what came true", "4"),
        ("zero-shot", "5"),
        ("tuned", "6"),
    ]
    assert not any(anchor.startswith(("plot-curves", "plot-gain")) for anchor in shown)


def test_weekdays_stand_upright(tmp_path: Path) -> None:
    """Seven whole names would be tilted on a phone; the table below has them in full."""
    evaluated(tmp_path)
    page = page_of(tmp_path)
    axes = [plot["layout"].get("xaxis", {}) for plot in page.plots]
    [axis] = [axis for axis in axes if axis.get("ticktext") == ["Mon", "Tue"]]
    assert (axis["tickangle"], axis["tickvals"]) == (0, ["Monday", "Tuesday"])


def test_the_file_is_whole_small_and_always_the_same(tmp_path: Path) -> None:
    """It asks for nothing from anywhere, stays under 8 MiB, and nothing half-written is left beside it."""
    evaluated(tmp_path)
    path = write_report(tmp_path)
    first = path.read_bytes()
    assert path == tmp_path / NAME
    assert len(first) < LIMIT
    assert write_report(tmp_path).read_bytes() == first
    assert sorted(file.name for file in tmp_path.glob("report*")) == [NAME]
    page = Page(first.decode())
    loaded = [one.get("src") or one.get("href") for _, one in page.elements if "src" in one or "href" in one]
    assert all(str(address).startswith(("#", "data:")) for address in loaded)
    [policy] = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)


def test_names_cannot_inject(tmp_path: Path) -> None:
    """A category, a series, a file and a reason that are HTML are shown as text, in tables and in plots."""
    study = evaluated(tmp_path, segment=NASTY, series=NASTY)
    study.fail(ask(study), NASTY)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert "<script>alert" not in text
    assert not page.all("img")
    assert len(page.all("script")) == len(page.plots) + 2
    assert page.text.count(NASTY) >= 4
    labels = json.dumps([plot["data"] for plot in page.plots])
    assert "&lt;/script&gt;" in labels
    assert "<script" not in labels


def test_a_sweep_of_two_trials_without_evaluation(tmp_path: Path) -> None:
    """The search is shown; what needs more trials, or the test windows, says so."""
    searched(tmp_path, complete=1, pruned=1)
    page = page_of(tmp_path)
    assert "No verdict yet" in page.text
    assert "The test windows were not scored" in page.text
    assert "it takes 4 to say anything" in page.text
    assert len(page.plots) == 1  # the learning curves
    assert "What the check of the data found was not kept" in page.text


def test_every_trial_failed(tmp_path: Path) -> None:
    """Why stands there once, however many trials failed for it."""
    study = new_study(tmp_path)
    for reason in ("the loss was NaN", "the loss was NaN", "out of memory"):
        study.fail(ask(study), reason)
    page = page_of(tmp_path)
    assert "every trial failed" in page.text
    assert page.text.count("the loss was NaN") == 1
    assert "trials 0, 1" in page.text
    assert "The untouched model was not scored" in page.text
    assert page.plots == []


def test_a_study_that_has_only_begun(tmp_path: Path) -> None:
    """Nothing to tell yet, and it says that."""
    new_study(tmp_path)
    page = page_of(tmp_path)
    assert "No trial was begun." in page.text
    with pytest.raises(InputError, match="a sweep's folder holds"):
        write_report(tmp_path / "none")


def test_an_older_sweep_and_one_with_another_winner(tmp_path: Path) -> None:
    """Without windows, or with those of other weights, no fan is shown; a file that was cut off counts as missing."""
    study = evaluated(tmp_path)
    for content in ('{"sha256": "other", "windows": [1]}', '{"sha256": "ab', "[]", None):
        (tmp_path / "windows.json").unlink()
        (tmp_path / "windows.json").write_text(content or "{}")
        page = page_of(tmp_path)
        assert "Forecasts of single windows were not kept" in page.text
        assert "A typical window" not in page.text
        assert "Error by weekday" in page.text
    study.note("evaluation", {**(study.attribute("evaluation")), "verdict": None})
    assert "evaluated before there were verdicts" in page_of(tmp_path).text


@pytest.mark.parametrize("made", ["average", "best + zero-shot"])
def test_what_training_again_gives_is_not_overstated(tmp_path: Path, made: str) -> None:
    """The recipe of an average or a blend trains the tuned member alone; that of one training repeats its score."""
    study = evaluated(tmp_path)
    same = "train it once more, to the same score"
    assert same in page_of(tmp_path).text
    study.note("winner", {**study.attribute("winner"), "challenger": made})
    text = page_of(tmp_path).text
    assert same not in text
    assert f"take what went out ({made}) and train its tuned member once more" in text


def test_evaluating_again_writes_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the report promises where it lacks something; one that cannot be written loses no evaluation."""
    evaluated(tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(small_recipe()))
    monkeypatch.setattr("chronotune.standalone.evaluate_again", lambda _: {"rows": []})
    assert evaluation_of(tmp_path) == {"rows": []}
    assert "A typical window" in (tmp_path / NAME).read_text(encoding="utf-8")
    monkeypatch.setattr("chronotune.page.report_html", None)
    assert evaluation_of(tmp_path) == {"rows": []}


def test_trials_are_compared_at_one_budget(tmp_path: Path) -> None:
    """Where at least half of them were scored: of eight, four of them stopped early, at the full budget."""
    searched(tmp_path / "half")
    study = Reader(tmp_path / "half").as_optuna
    assert shared_budget(study) == 27
    searched(tmp_path / "few", complete=3, pruned=4)
    study = Reader(tmp_path / "few").as_optuna
    assert shared_budget(study) == 3
    same = at_budget(study, 3)
    assert [trial.value for trial in same.trials] == pytest.approx([0.9 + 0.01 * trial for trial in range(7)])
    assert varied(same) == ["learning_rate"]
    assert importances(same) == {"learning_rate": pytest.approx(1)}
    assert shared_budget(Reader(_one_result(tmp_path / "one")).as_optuna) is None


def test_of_many_trials_the_best_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under their own numbers, and the page says so; fANOVA takes as many, from the first to the last."""
    monkeypatch.setattr(trials, "MOST", 3)
    study = evaluated(tmp_path)
    study.finish(ask(study), 27)  # without a result, it fails
    best = ask(study)
    study.record(best, result(3, 0.1))
    study.finish(best, 27)
    optuna = Reader(tmp_path).as_optuna
    assert trials.the_best(optuna)[1] == [0, 1, best]
    assert [trial.params for trial in trials.spread(optuna).trials] == [optuna.trials[n].params for n in (0, 3, 6)]
    chart = trials.learning_curves(optuna, {0: "complete", 1: "complete", best: "pruned"}, 0, None)
    assert [trace["name"] for trace in chart["data"]] == ["trial 0, complete", "trial 1, complete", "trial 9, pruned"]
    page = page_of(tmp_path)
    assert "Of 10 trials the best 3 are shown" in page.text
    assert "7 trials behind these: see `chronotune show`" in page.text
    assert "Of 9 trials 3 are drawn, from the first to the last" in page.text
    [dots] = [plot for plot in page.plots if "learning_rate" in str(plot["layout"].get("xaxis", {}).get("title"))]
    assert len(dots["data"][0]["x"]) == 3


def _one_result(directory: Path) -> Path:
    directory.mkdir()
    study = new_study(directory)
    study.record(ask(study), result(3, 0.5))
    return directory


def test_the_command(tmp_path: Path) -> None:
    """It writes where it is told, and says where."""
    searched(tmp_path / "sweep")
    to = tmp_path / "new" / "r.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "sweep"), "--to", str(to)])
    assert done.output.strip() == str(to)
    assert to.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("error", [ChronotuneError("no trial succeeded"), KeyboardInterrupt()])
def test_a_sweep_that_failed_has_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """With what is known of the data; what ended the sweep still ends it, and MLflow had everything before."""
    recipe = small_recipe()
    dataset = load(recipe)
    study = searched(tmp_path)

    def end(*_: object) -> None:
        raise error

    reports = list[bool]()
    monkeypatch.setattr(sweep, "run_tuner", end)
    monkeypatch.setattr("chronotune.sweep.Mirror.flush", lambda *_: reports.append((tmp_path / NAME).exists()))
    run = sweep._Sweep(tmp_path, recipe, dataset, trial_data(dataset, recipe), study, None)
    with pytest.raises(type(error)):
        run.run()
    text = Page((tmp_path / NAME).read_text(encoding="utf-8")).text
    assert "8,760, one every 1 hour" in text
    assert reports[0] is False


def test_a_report_that_cannot_be_written_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, with the command that tries again."""
    recipe = small_recipe()
    searched(tmp_path)
    (tmp_path / NAME).mkdir()  # in the way
    sweep._report(tmp_path, recipe, load(recipe))
    assert "chronotune report" in caplog.text


@pytest.mark.parametrize(("written", "again"), [(None, True), (-60, True), (60, False)])
def test_a_finished_sweep_gets_the_report_that_a_killed_driver_did_not_write(
    tmp_path: Path, written: int | None, again: bool
) -> None:
    """None, or one of an earlier driver; that of its end stays."""
    recipe, ended, report = small_recipe(), datetime.fromisoformat("2026-01-02T05:04:05+00:00"), tmp_path / NAME
    searched(tmp_path)
    if written is not None:
        report.write_text("earlier")
        os.utime(report, (ended.timestamp() + written,) * 2)
    sweep._tell_the_end(tmp_path, recipe, load(recipe), ended)
    assert (report.read_text(encoding="utf-8") != "earlier") == again


def test_html_is_escaped_unless_it_is_html() -> None:
    """Wherever text enters: content, attributes, JSON."""
    assert tag("p", "<b>", Html("<i></i>"), title='"') == '<p title="&quot;">&lt;b&gt;\n<i></i></p>'
    assert "\\u003c/script\\u003e" in data("x", ["</script>", float("nan")])
    assert json.loads(data("x", ["<", float("inf")]).split(">", 1)[1].removesuffix("</script>")) == ["<", None]
    rows = [{"model": str(row)} for row in range(15)]
    assert "3 more" in table("t", rows)
    assert table("t", []) == ""


def test_moments_are_written_as_people_do() -> None:
    """No T, and no zeros that say nothing."""
    assert moment("2024-01-01T00:00:00") == "2024-01-01"
    assert moment("2024-01-01T05:00:00") == "2024-01-01 05:00"
    assert moment("2024-01-01T05:30:10") == "2024-01-01 05:30:10"
