"""What the benchmarks' commands share: one JSON object or a table, and errors as sentences."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import Any

from chronotune.errors import ChronotuneError


def carry_out(
    options: argparse.Namespace, benchmark: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None]
) -> int:
    """Run a benchmark; with `options.json` print its results as one JSON object, else `show` them; the exit code.

    Beside that object nothing goes to stdout, not even a warning that Ray prints there.
    """
    try:
        with redirect_stdout(sys.stderr) if options.json else nullcontext():
            results = benchmark()
    except ChronotuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)
    return 0
