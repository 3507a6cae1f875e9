"""The table of README.md, which `faults.py --readme` writes from what `--json` printed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from judge import Outcome

import faults

README = Path(__file__).parent / "README.md"


def _line(name: str, **told: object) -> str:
    parts = {"happened": "killed, resumed", "kills": 1, "left": "lease", "verdict": "identical", "survived": True}
    return json.dumps(asdict(Outcome(name, faults.FAULTS[name].told, **{**parts, **told})))  # type: ignore[arg-type]


def test_a_fault_is_a_row_in_the_order_of_the_list() -> None:
    """Of a fault that was run again, the last one counts."""
    lines = [_line("nan", kills=5), _line("tell", complete=4, pruned=2), _line("nan", verdict="consistent")]
    assert faults.readme(lines).splitlines()[2:] == [
        "| driver, between report and tell | 1 | killed, resumed | lease | 4/2/0/0 | identical |",
        "| the loss turns NaN | 1 | killed, resumed | lease | 0/0/0/0 | consistent |",
    ]


def test_json_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault is printed when it is over, so that what ends the script later costs nothing."""
    monkeypatch.setattr(faults, "endure", lambda name, _: Outcome(**json.loads(_line(name))))
    assert faults.main(["--only", "tell", "nan", "--json"]) == 0
    (tmp_path / "told").write_text(printed := capsys.readouterr().out)
    assert faults.main(["--readme", str(tmp_path / "told")]) == 0
    assert capsys.readouterr().out.strip() == faults.readme(printed.splitlines())
    assert len(printed.splitlines()) == 2


def test_the_readme_tells_of_every_fault() -> None:
    """One that is new is run, and its row written, before it is there."""
    rows = [line.strip("| ").split(" | ") for line in README.read_text().splitlines() if line.count("|") > 5][2:]
    assert [row[0] for row in rows] == [fault.told for fault in faults.FAULTS.values()]
    assert all(row[-1] in ("identical", fault.promise) for row, fault in zip(rows, faults.FAULTS.values(), strict=True))
