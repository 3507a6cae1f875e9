"""What runs on the cluster when a sweep was submitted as a job: `python -m chronotune.driver`.

Its order is in the environment; what it prints is the job's log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from chronotune.cluster.jobs import ORDER
from chronotune.cluster.parcel import Order, unpack
from chronotune.collector import importing
from chronotune.errors import ChronotuneError


def main() -> int:
    """Carry out the order; the exit code, as the command line has them."""
    order, came = Order.read(os.environ[ORDER]), Path.cwd()
    try:
        _work_in(Path(order.directory).parent)
        carry_out(order, came, Console(width=160))
    except KeyboardInterrupt:
        print("interrupted; everything finished is recorded", file=sys.stderr)  # noqa: T201  # this is the job's log
        return 130
    except ChronotuneError as error:
        print(f"chronotune: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _work_in(folder: Path) -> None:
    """Work beside the sweeps: the job's own directory is gone after it, and with it what relative paths name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    except OSError as error:
        raise ChronotuneError(
            f"{folder}: a job needs the folder of its sweeps, but it cannot be used ({error.strerror}). "
            f"Name storage in the profile's sweeps that all nodes mount"
        ) from error


def carry_out(order: Order, came: Path, console: Console) -> None:
    """Run or resume the sweep."""
    with importing():
        from chronotune.progress import watcher
        from chronotune.sweep import resume_sweep, run_sweep

    if order.recipe is None:
        resume_sweep(order.directory, order.more_trials, watcher(console), order.more_minutes)
    else:
        run_sweep(unpack(order, came), order.directory, watcher(console))


if __name__ == "__main__":
    sys.exit(main())
