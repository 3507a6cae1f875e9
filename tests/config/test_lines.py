"""Reading and writing YAML: which scalars are what, and where each key stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chronotune.config.lines import Place, dotted, dump, parse, read, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-05", 1e-5),
        ("3E+2", 300.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("7.", 7.0),
        ("12", 12),
        ("-3", -3),
        ("017", 17),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2018-01-01", "2018-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("'true'", "true"),
        ("'1e-5'", "1e-5"),
        ("null", None),
        ("", None),
        ("[a, 1, 2.5]", ["a", 1, 2.5]),
        ("{when: {mode: lora}}", {"when": {"mode": "lora"}}),
        ("{1: a, yes: b}", {"1": "a", "yes": "b"}),
        ("9" * 5000, float("inf")),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    """Plain text means what YAML 1.2 says, above all that 1e-5 is a number."""
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [1e-5, 1e22, 0.1, "1e-5", "3", "no", "2018-01-01", "12:30", "017", "~", "", "a: b", "é", "09", True, None]
)
def test_dump_reads_back(value: Any) -> None:
    """Text that looks like a number is quoted; floats keep every digit."""
    found = parse(dump({"key": value, "list": [value]}), "x", Path()).value
    assert found == {"key": value, "list": [value]}
    assert type(found["key"]) is type(value)


def test_places() -> None:
    """Every key and list item has its own line; what was not written has that of the key around it."""
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - y\n", "f.yaml", Path())
    lines = {path: document.place(path).line for path in [("a",), ("a", "b"), ("a", "c", 1), ("a", "z"), ("q",)]}
    assert lines == {("a",): 1, ("a", "b"): 2, ("a", "c", 1): 5, ("a", "z"): 1, ("q",): 1}


def test_write_takes_over_the_place() -> None:
    """A value set later hides the lines of what it replaced, and of nothing else."""
    document = parse("a: {b: 1, c: 2}\n", "f.yaml", Path())
    document.write(("a", "b"), {"d": 3}, Place("--set"))
    document.write(("e", "f"), 4, Place("--set"))
    assert document.value == {"a": {"b": {"d": 3}, "c": 2}, "e": {"f": 4}}
    assert [str(document.place(p)) for p in [("a", "b", "d"), ("a", "c"), ("e",)]] == ["--set", "f.yaml:1", "--set"]


def test_anchors_and_merges() -> None:
    """YAML's own way to repeat a mapping works, and what overrides a merged key is no duplicate."""
    document = parse("base: &base {x: 1, y: 2}\nmine: {<<: *base, y: 3}\n", "f.yaml", Path())
    assert document.value["mine"] == {"x": 1, "y": 3}
    assert document.faults == []


def test_every_duplicate_is_reported() -> None:
    """All repeated keys come together, with their full names."""
    document = parse("a: {b: 1, b: 2}\nc: 1\na: 3\n", "f.yaml", Path())
    assert [(fault.where, fault.key) for fault in document.faults] == [("f.yaml:3", "a"), ("f.yaml:1", "a.b")]


def test_byte_order_mark(tmp_path: Path) -> None:
    """A file saved by a Windows editor reads like any other."""
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: mine\r\nhorizon: 24\r\n")
    assert read(file, "bom.yaml").value == {"name": "mine", "horizon": 24}


def test_dotted() -> None:
    """List positions stand in brackets."""
    assert dotted(("data", "seasons", 0)) == "data.seasons[0]"
