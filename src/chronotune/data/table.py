"""A CSV or Parquet file as a frame in file order; CSV cells stay text until their column is used."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from chronotune.errors import Fault, InputError

CSV = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
DELIMITERS = (",", ";", "\t")
MISSING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?")
"""Besides the empty cell, what stands for a missing number."""


def read_table(path: Path) -> pl.DataFrame:
    """All columns of the file, rows in file order; every CSV column as text.

    Delimiters `,`, `;` and tab are told apart by the header; a byte order mark is no part of it.

    Raises:
        InputError: There is no such file, it is neither CSV nor Parquet, or it holds no rows.
    """
    if not path.is_file():
        raise _fault(path, "the file must exist, but it does not", _neighbour(path))
    suffix = path.suffix.lower()
    if suffix not in CSV + PARQUET:
        rule = f"the file name must end in {', '.join(CSV + PARQUET)}, but it ends in {suffix or 'nothing'}"
        raise _fault(path, rule, "Convert the file to CSV or Parquet")
    try:
        frame = _read_csv(path) if suffix in CSV else pl.read_parquet(path, glob=False)
    except OSError as error:
        raise _fault(path, f"the file must be readable, but {error.strerror or error}", "Check its rights") from error
    except pl.exceptions.PolarsError as error:
        kind, cause = (
            ("CSV", "an unclosed quote") if suffix in CSV else ("Parquet", "another kind of file, or half of one")
        )
        raise _fault(path, f"the file must be sound {kind}, but it is not", f"The usual cause is {cause}") from error
    if not frame.height:
        raise _fault(path, "the file must hold rows, but it has only a header", "Check what wrote it")
    return frame


def _read_csv(path: Path) -> pl.DataFrame:
    delimiter, header = _header(path)
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        rule = f"column names must differ, but {', '.join(map(repr, repeated))} appears twice"
        raise _fault(path, rule, "Rename one of them")
    try:
        frame = pl.read_csv(path, separator=delimiter, infer_schema=False, glob=False)
    except pl.exceptions.ComputeError:
        _require_even_rows(path, delimiter, len(header))
        raise
    if len(frame.columns) != len(header):
        rule = f"lines must end alike, but the header has {len(header)} columns to one reader and {len(frame.columns)}"
        raise _fault(path, f"{rule} to another", "Save the file with line ends of one kind (LF)")
    frame = frame.rename(dict(zip(frame.columns, header, strict=True)))
    return _without_blank_end(frame)


def _header(path: Path) -> tuple[str, list[str]]:
    """Delimiter and column names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline()
            delimiter = max(DELIMITERS, key=line.count)
            file.seek(0)
            header = next(csv.reader(file, delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    if not header:
        found = "its first line is blank" if line else "it is empty"
        raise _fault(path, f"the file must start with a header, but {found}", "Check what wrote it")
    return delimiter, [name.strip() for name in header]


def _require_even_rows(path: Path, delimiter: str, width: int) -> None:
    """Name the first row that is longer than the header, or the wrong encoding: polars says neither."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row, cells in enumerate(csv.reader(file, delimiter=delimiter)):
                if len(cells) > width:
                    rule = f"every row must have {width} cells like the header, but this one has {len(cells)}"
                    remedy = f"Quote cells that contain {delimiter!r}"
                    raise InputError([Fault(f"{path} row {row}", "", rule, remedy)])
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error


def _without_blank_end(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without the empty lines at its end."""
    filled = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().arg_true()
    return frame.head(filled[-1] + 1 if len(filled) else 0)


def numbers_where_possible(column: pl.Series) -> pl.Series:
    """Float64 (missing is null) when every cell is a number or missing, else the column as text.

    Whether text may stand here is the check's to say; it knows the rows.
    """
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_nan(None)
    text = _tidy(column.cast(pl.String))
    candidates = without(text, text.is_in(MISSING))
    numbers = candidates.cast(pl.Float64, strict=False).fill_nan(None)
    if numbers.null_count() == candidates.null_count() and numbers.count():
        return numbers
    return text if text.count() else numbers


def _tidy(text: pl.Series) -> pl.Series:
    """Cells stripped, blank ones null, `True` and `TRUE` written like Parquet's booleans."""
    text = stripped(text)
    lower = text.str.to_lowercase()
    return lower if lower.drop_nulls().is_in(["true", "false"]).all() else text


def stripped(text: pl.Series) -> pl.Series:
    """Without blanks around the cells; what is nothing else becomes null."""
    text = text.str.strip_chars()
    return without(text, text == "")


def without(values: pl.Series, mask: pl.Series) -> pl.Series:
    """The values, null where the mask holds."""
    return pl.select(pl.when(~mask).then(values).alias(values.name)).to_series()


def nearest(name: str, known: Sequence[str]) -> str:
    """A question that offers the most similar known name, or an empty string."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"Did you mean {by_lower[close[0]]!r}?" if close else ""


def _neighbour(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir() if other.is_file()]
    except OSError:
        names = []
    return nearest(path.name, names) or "Give data.path relative to the folder you are in, or absolute"


def _not_utf8(path: Path) -> InputError:
    return _fault(path, "the file must be UTF-8 text, but it is not", "Save it as CSV UTF-8")


def _fault(path: Path, rule: str, remedy: str) -> InputError:
    return InputError([Fault(str(path), "data.path", rule, remedy)])
