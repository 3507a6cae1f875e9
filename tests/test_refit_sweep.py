"""One real sweep whose driver is killed while the winner is trained once more; it is resumed, and exported."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from chronotune.gate import UNVERIFIED
from chronotune.study import read
from test_sweep import ENVIRONMENT, chronotune


def test_a_sweep_is_refitted_after_a_kill(tmp_path: Path) -> None:
    """The verdict of before stays and the test is not opened again; `train` repeats what is exported."""
    settings = ("finalists.refit=true", "budget.trials=2", "early_stopping.kind=none")
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "chronotune", "run", "smoke", "--dir", "one", *options]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob("one/.refit/*/16/meta.json")):
            time.sleep(0.02)
        process.kill()
    before = read(tmp_path / "one")
    assert before.evaluation is not None
    assert "refit" not in before.attributes["winner"]
    printed = chronotune("resume", "one", cwd=tmp_path)
    after = read(tmp_path / "one")
    assert f"export writes these weights, {UNVERIFIED}" in printed
    assert (after.evaluation, after.attributes["test_openings"]) == (
        before.evaluation,
        before.attributes["test_openings"],
    )
    assert not (tmp_path / "one/.refit").exists()
    chronotune("export", "one", "--to", "models/solar", "--force", cwd=tmp_path)
    told = json.loads(chronotune("train", "models/solar/recipe.yaml", "--to", "models/again", "--json", cwd=tmp_path))
    assert told["score"] is None
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("models/solar", "models/again")]
    assert weights[0] == weights[1] != (tmp_path / "one/winner/model.safetensors").read_bytes()
