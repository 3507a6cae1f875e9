"""What people see: tables and progress, in a pipe and on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from chronotune.data.prepare import load
from chronotune.progress import watcher
from chronotune.report import conclude, evaluation_table, leaderboard_table, registration
from chronotune.results import sweeps
from chronotune.tracking import MirrorReport
from sweep_parts import ask, new_study, result, small_recipe
from test_results import some_sweep


def console(terminal: bool = False) -> Console:
    """A console that keeps what it prints."""
    return Console(file=io.StringIO(), width=160, force_terminal=terminal)


def text_of(console: Console) -> str:
    """All that was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_one_line_a_result(tmp_path: Path) -> None:
    """Each state of each trial once, however often the study is read."""
    pipe, study = console(), new_study(tmp_path)
    watch = watcher(pipe)
    recipe = small_recipe()
    watch.began(tmp_path, recipe, load(recipe), study.read())
    number = ask(study)
    watch.update(study.read())
    study.record(number, result(3, 0.7))
    watch.update(study.read())
    watch.update(study.read())
    study.finish(number, 27)
    watch.update(study.read())
    lines = [line for line in text_of(pipe).splitlines() if line.startswith("trial")]
    assert lines == [
        "trial 0: 3/27 windows, 4 steps, 2 s, sql 0.7000, running [0/4 trials done]",
        "trial 0: 3/27 windows, 4 steps, 2 s, sql 0.7000, stopped early [1/4 trials done]",
    ]
    assert "4 trials of small on solar, up to 27 windows each (4-14 optimizer steps)" in text_of(pipe)


def test_a_table_says_how_much_it_leaves_out(tmp_path: Path) -> None:
    """Of zero-shot and four trials."""
    reading, printed = some_sweep(tmp_path).read(), io.StringIO()
    for rows in (1, None):
        Console(file=printed, width=200).print(leaderboard_table(reading, rows))
    assert printed.getvalue().count("3 more in `chronotune show`") == 1
    assert printed.getvalue().count(" more in ") == 1


def test_a_failure_is_a_line_with_its_reason(tmp_path: Path) -> None:
    """Also when there was no result at all."""
    pipe, study = console(), new_study(tmp_path)
    study.fail(ask(study), "out of memory")
    watcher(pipe).update(study.read())
    assert "trial 0: failed: out of memory" in text_of(pipe)


def test_a_finalist_s_training_is_a_line_with_its_seed(tmp_path: Path) -> None:
    """Its number in its own study is nobody's business."""
    study = some_sweep(tmp_path)
    pipe, second = console(), study.finalists()
    study.note("finalists", {"trials": [0], "seeds": [1, 2]})
    watch = watcher(pipe)
    recipe = small_recipe()
    watch.began(tmp_path, recipe, load(recipe), study.read())
    for seed, score in ((1, 0.65), (2, 0.7)):
        number = study.repeat(0, seed, into=second).number
        second.record(number, result(27, score))
        second.finish(number, 27)
        watch.update(study.read())
    assert [line for line in text_of(pipe).splitlines() if line.startswith("finalist")] == [
        "finalist: trial 0 with seed 1: 27/27 windows, 4 steps, 2 s, sql 0.6500, complete [1/2 trainings done]",
        "finalist: trial 0 with seed 2: 27/27 windows, 4 steps, 2 s, sql 0.7000, complete [2/2 trainings done]",
    ]
    assert "then the best 3 again with 3 other seeds" in text_of(pipe)


def test_the_finalists_stand_below_the_leaderboard(tmp_path: Path) -> None:
    """Mean, spread, the score that they were chosen for, and each seed's; the winner is told with what is exported."""
    study = some_sweep(tmp_path)
    second = study.finalists()
    study.note("finalists", {"trials": [0], "seeds": [1, 2, 3]})
    for seed, score in ((1, 0.65), (2, 0.7)):
        number = study.repeat(0, seed, into=second).number
        second.record(number, result(27, score))
        second.finish(number, 27)
    page = console()
    conclude(page, tmp_path, study.read())
    head, row = (
        next(line.split() for line in text_of(page).splitlines() if mark in line) for mark in ("seed 1", "0.7000")
    )
    assert "mean sql spread gain in the search seed 1 seed 2 seed 3" in " ".join(head)
    assert row == ["0", "interrupted", "0.6750", "0.0354", "+15.6%", "0.6000", "0.6500", "0.7000"]
    assert "wins" not in text_of(page)
    assert "by their mean\nonly 1 of the 3 wanted: no other point reached the full budget" in text_of(page)
    study.repeat(0, 3, into=second)
    second.fail(2, "no memory")
    study.note("winner", {"number": 0, "seed": 2, "score": 0.7, "mean": 0.675, "spread": 0.035355, "seeds": 2})
    page = console()
    conclude(page, tmp_path, study.read())
    assert "trial 0 wins with a mean sql of 0.6750 over 2 seeds, spread 0.0354; exported: seed 2" in text_of(page)
    assert "failed" in next(line for line in text_of(page).splitlines() if "0.7000" in line).split()[-1]


def test_a_terminal_gets_a_live_table(tmp_path: Path) -> None:
    """With the finalists below, once there are any; it goes away at the end, when the final tables are printed."""
    screen, study = console(terminal=True), some_sweep(tmp_path)
    watch = watcher(screen)
    recipe = small_recipe()
    watch.began(tmp_path, recipe, load(recipe), study.read())
    watch.update(study.read())
    assert "finalists" not in text_of(screen)
    second = study.finalists()
    study.note("finalists", {"trials": [0], "seeds": [1]})
    study.repeat(0, 1, into=second)
    watch.update(study.read())
    assert "finalists: validation sql" in text_of(screen)
    assert "running" in text_of(screen)
    assert "interrupted" not in text_of(screen)
    watch.ended(tmp_path, study.read())
    assert text_of(screen).count("zero-shot") >= 2


def test_the_conclusion_names_the_next_step(tmp_path: Path) -> None:
    """Resume what is unfinished, export what is evaluated."""
    (folder := tmp_path / "one").mkdir()
    study, page = some_sweep(folder), console()
    conclude(page, folder, study.read())
    assert "4 trials: 1 stopped early, 1 failed, 1 interrupted" in text_of(page)
    assert "zero-shot: validation sql of the untouched model by what it is fed" in text_of(page)
    assert ["96", "0.8000"] in [line.split() for line in text_of(page).splitlines()]
    assert ["48", "0.9000"] in [line.split() for line in text_of(page).splitlines()]
    assert "chronotune resume" in text_of(page)
    row = {"model": "best", "context_length": 96, "covariates": "known"}
    scores = dict.fromkeys(("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80"), 0.5)
    evaluation = {
        "rows": [{**row, **scores}],
        "windows": 73,
        "horizon": 24,
        "first_origin": "2023-10-20",
        "last_origin": "2023-12-31",
        "test_openings": 1,
        "verdict": {"decision": "keep zero-shot", "sentence": "keep zero-shot, best is not shown to be better"},
    }
    study.note("evaluation", evaluation)
    study.note("ended", "now")
    page = console()
    conclude(page, folder, study.read())
    assert "next: keep small as it is, with context " in text_of(page)
    assert "chronotune export" in text_of(page)
    assert "--to models/NAME --force" in text_of(page)
    assert "; opened once" in text_of(page)
    assert "verdict: keep zero-shot, best is not shown to be better" in text_of(page)
    [about] = [one["about"] for one in sweeps(tmp_path)]
    assert about.endswith(": keep zero-shot")
    shipped = {"decision": "ship the challenger", "sentence": "ship best"}
    study.note("evaluation", {**evaluation, "verdict": shipped})
    conclude(better := console(), folder, study.read())
    assert text_of(better).rstrip().endswith("one --to models/NAME")
    study.note("evaluation", {**evaluation, "sha256": "of an earlier winner"})
    conclude(other := console(), folder, study.read())
    assert "verdict" not in text_of(other)
    page.print(evaluation_table({**evaluation, "test_openings": 2, "verdict": None}))
    assert "opened 2 times" in text_of(page)


@pytest.mark.parametrize(("width", "objective"), [(52, "mae"), (80, "sql"), (100, "sql"), (160, "sql")])
def test_an_evaluation_leaves_columns_out_but_cuts_no_number(width: int, objective: str) -> None:
    """As many as must be, and never what the verdict is on; its gain stays too."""
    scores = dict.fromkeys(("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80"), 0.1234)
    about = {"model": "seasonal naive (24)", "context_length": 1008, "covariates": "all", "members": None}
    row = {**about, **scores, "gain": 0.123, "gain_low": -0.324, "gain_high": 0.105}
    head = {"windows": 73, "horizon": 24, "first_origin": "a", "last_origin": "b", "test_openings": 1}
    verdict = {"challenger": "best", "sentence": "keep zero-shot", "objective": objective}
    page = Console(file=io.StringIO(), width=width)
    page.print(evaluation_table({**head, "rows": [row], "verdict": verdict}, width))
    [headings] = [line for line in text_of(page).splitlines() if line.lstrip().startswith("model")]
    [cells] = [line for line in text_of(page).splitlines() if "seasonal naive (24)" in line]
    assert "…" not in headings + cells
    assert {objective, "gain"} <= set(headings.split())
    assert ("mape" in headings) == (width == 160)


def test_a_model_by_itself_that_no_terminal_holds_is_shown_all_the_same() -> None:
    """It has no gains, so there is no column of theirs to leave out; the name and the objective stay."""
    scores = dict.fromkeys(("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80"), 0.1234)
    row = {"model": "a-name-of-some-length" * 2, "context_length": 1008, "covariates": "all", "members": None, **scores}
    head = {"windows": 73, "horizon": 24, "first_origin": "a", "last_origin": "b", "verdict": None}
    page = Console(file=io.StringIO(), width=50)
    page.print(evaluation_table({**head, "rows": [row]}, 50))
    [headings] = [line for line in text_of(page).splitlines() if line.lstrip().startswith("model")]
    assert headings.split() == ["model", "sql"]


def test_what_became_of_the_winner_in_the_registry_is_told(tmp_path: Path) -> None:
    """Its version; why it is none; nothing where no registry is wanted, or MLflow did not take it and said so."""
    tracking = {"registry": "plant"}
    study = new_study(tmp_path, small_recipe(tracking=tracking))
    study.note("winner", {"number": 0, "score": 0.7, "sha256": "abc"})
    assert registration(study.read(), None, "sqlite:///m.db") == ""
    for decision, version, told in (
        ("ship the challenger", "3", "registered: version 3 of plant in MLflow at sqlite:///m.db"),
        ("ship the challenger", None, ""),
        ("keep zero-shot", None, "not registered as plant: the verdict is keep zero-shot"),
    ):
        study.note("evaluation", {"sha256": "abc", "verdict": {"decision": decision, "sentence": "keep it"}})
        assert registration(study.read(), version, "sqlite:///m.db") == told
    study.note("evaluation", {"sha256": "abc", "verdict": {"decision": "ship the challenger", "sentence": "ship"}})
    assert "set tracking.enabled: true" in registration(study.read(), None, None)
    study.note("evaluation", {"sha256": "abc", "verdict": {"decision": "keep zero-shot", "sentence": "keep"}})
    pipe = console()
    watcher(pipe).registered(study.read(), MirrorReport("sqlite:///m.db"))
    assert "not registered as plant" in text_of(pipe)
    (tmp_path / "other").mkdir()
    other = new_study(tmp_path / "other")
    other.note("winner", {"number": 0, "score": 0.7, "sha256": "abc"})
    assert registration(other.read(), None, None) == ""


def test_gains_have_intervals_and_only_one_is_a_verdict(tmp_path: Path) -> None:
    """The table shows each contender's gain over zero-shot, and says what the blends are and what is no verdict."""
    scores = dict.fromkeys(("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80"), 0.5)
    about = {"context_length": None, "covariates": "", "members": None, **scores}
    gains = {"gain": 0.123, "gain_low": -0.01, "gain_high": 0.25}
    weights = {"best": 0.7, "zero-shot": 0.3}
    rows = [
        {"model": "zero-shot", **about, "gain": None, "gain_low": None, "gain_high": None},
        {"model": "best + zero-shot", **about, **gains, "members": weights},
    ]
    head = {"windows": 73, "horizon": 24, "first_origin": "a", "last_origin": "b", "test_openings": 1}
    verdict = {"challenger": "best + zero-shot", "sentence": "keep zero-shot", "objective": "sql"}
    page = console()
    page.print(evaluation_table({**head, "rows": rows, "verdict": verdict}))
    text = text_of(page)
    row = next(line for line in text.splitlines() if line.startswith(" best + zero-shot") or "12.3%" in line)
    assert row.split()[-4:] == ["+12.3%", "-1.0%", "to", "+25.0%"]
    assert "best + zero-shot: 70% best, 30% zero-shot; weights from validation" in text
    assert "only that of best + zero-shot, chosen on validation, is a verdict" in text
    page.print(evaluation_table({**head, "rows": rows, "verdict": None}))
    assert "none is a verdict" in text_of(page)
    study = some_sweep(tmp_path)
    choice = {
        "blends": {"best + zero-shot": weights},
        "scores": {"best": 0.7, "best + zero-shot": 0.65},
        "averaged": [],
    }
    study.note("winner", {"number": 0, "score": 0.7, "challenger": "best + zero-shot"})
    study.note("choice", choice)
    conclude(page := console(), tmp_path, study.read())
    text = " ".join(text_of(page).split())
    assert "in its place best + zero-shot challenges zero-shot (70% best, 30% zero-shot), 7.14% better" in text
