"""The memory of training a random model of a given shape: two optimizer steps, each time in a process of its own.

    python benchmarks/memory_steps.py full                       what they take, against what is predicted
    python benchmarks/memory_steps.py lora --limit 1500000000    the same two when the engine is told of a limit
    python benchmarks/memory_steps.py lora --limit 1500000000 --enforced    ... and when it is not, but runs into it

`engine.py` runs it so, with MALLOC_MMAP_THRESHOLD_=65536 in the environment: without it glibc keeps what is freed, and
the peak is that of its gaps too. Two steps, because the optimizer's state is there from the end of the first on.
Linux only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from against_fit import Shape
    from chronos.chronos2.model import Chronos2Model

    from chronotune.finetune import FineTuner

STEPS = 2
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc gives large blocks back when they are freed, so that what is measured is what is in use."""
CORES: dict[str, dict[str, int]] = {
    "120m": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "small": {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_heads": 8},
}
"""120m is the shape of amazon/chronos-2."""
BATCHES = {"120m": (4, 10, 512), "small": (4, 4, 256)}
"""Windows, rows and context of a step."""


def measure(core: str) -> dict[str, Any]:
    """For full and LoRA: what is predicted and what is measured, in bytes, without a limit and below one.

    The limit is what half of the windows are predicted to need, and the error that the engine allows for.

    Returns:
        By mode `predicted`, `measured`, their `ratio`, and the same steps under the limit that the engine is `told` of
        and under one that is `enforced`; or `skipped`, with the reason.
    """
    if importlib.util.find_spec("chronotune.memory") is None:
        return {"skipped": "this version of chronotune does not predict memory: it has no module chronotune.memory"}
    if not Path("/proc/self/clear_refs").exists():
        return {"skipped": "the peak of a process is read from /proc, which only Linux has"}
    results = {}
    for mode in ("full", "lora"):
        free = run(core, mode)
        limit = free.pop("limit", None)
        limited = {} if limit is None else {"limit": limit}
        for how in () if limit is None else ("told", "enforced"):
            limited[how] = run(core, mode, limit, enforced=how == "enforced")
        results[mode] = {**free, **limited}
    return {"core": core, **dict(zip(("windows", "rows", "context"), BATCHES[core], strict=True)), **results}


def run(core: str, mode: str, limit: int | None = None, *, enforced: bool = False) -> dict[str, Any]:
    """This file in another process; `failed` with its last line when it does not come to an end."""
    bound = [] if limit is None else ["--limit", str(limit), *(["--enforced"] if enforced else [])]
    command = [sys.executable, str(Path(__file__).resolve()), mode, "--core", core, *bound]
    done = subprocess.run(command, env={**os.environ, **ALLOCATOR}, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Two steps here; prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("full", "lora"))
    parser.add_argument("--core", choices=CORES, default="120m", help="shape of the model")
    parser.add_argument("--limit", type=int, help="bytes that training may take")
    parser.add_argument("--enforced", action="store_true", help="the system refuses more, and the engine is not told")
    options = parser.parse_args(arguments)
    if options.limit and not options.enforced:
        os.environ["CHRONOTUNE_TRIAL_MEMORY"] = str(options.limit)
    print(json.dumps(_two_steps(options.core, options.mode, options.limit if options.enforced else None)))
    return 0


def random_model(core: str) -> Chronos2Model:
    """A random model of a shape of `CORES`, dropout on, all its memory touched."""
    import torch
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    levels = [0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99]
    forecasting = {
        "context_length": 8192,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "max_output_patches": 64,
        "output_patch_size": 16,
        "quantiles": levels,
        "time_encoding_scale": 8192,
        "use_arcsinh": True,
        "use_reg_token": True,
    }
    torch.manual_seed(0)
    config = Chronos2CoreConfig(**CORES[core], chronos_pipeline_class="Chronos2Pipeline", chronos_config=forecasting)
    return Chronos2Model(config).eval()


def _two_steps(core: str, mode: str, enforced: int | None) -> dict[str, Any]:
    import torch
    from against_fit import Shape, long_panel, tuner_of

    torch.set_num_threads(1)
    shape = Shape(*BATCHES[core])
    panel = long_panel(5000, shape.rows - 1)
    warm = tuner_of(random_model("small"), panel, Shape(1, shape.rows, 64), 1, mode)  # type: ignore[arg-type]
    warm.advance(1)  # what libraries load and set aside once is no part of training
    del warm
    model = random_model(core)
    before = _reset_peak()
    if enforced is not None:
        _enforce(enforced)
    tuner = tuner_of(model, panel, shape, STEPS, mode)  # type: ignore[arg-type]
    tuner.advance(STEPS * shape.windows)
    measured = _status("VmHWM") - before
    parameters = sum(p.numel() for p in model.parameters())
    result = {"parameters": parameters, "steps": tuner.steps, "measured": measured}
    if enforced is None and "CHRONOTUNE_TRIAL_MEMORY" not in os.environ:
        result |= _predicted(tuner, shape, mode)
        result["ratio"] = measured / result["predicted"]
    return {**result, "splits": getattr(tuner, "splits", None)}


def _predicted(tuner: FineTuner, shape: Shape, mode: str) -> dict[str, Any]:
    """What the engine predicts for all windows at once, and the limit that half of them need."""
    from against_fit import HORIZON

    memory = importlib.import_module("chronotune.memory")
    model = tuner.model
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    described = memory.Architecture.of(model.config, model.chronos_config, sum(size for size, _ in sizes), trained)
    peaks = [
        memory.predict(described, memory.Load(shape.context, HORIZON, windows, shape.rows, mode)).peak
        for windows in (shape.windows, max(1, shape.windows // 2))
    ]
    return {"predicted": peaks[0], "limit": int(peaks[1] * (1 + memory.ERROR)) + 1}


def _reset_peak() -> int:
    """Let the kernel forget the highest memory of this process; bytes that it has now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _enforce(limit: int) -> None:
    """Refuse this process more than `limit` bytes beyond what it has."""
    import resource

    bound = _status("VmData") + limit
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _status(name: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    [kilobytes] = re.findall(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(kilobytes) * 1024


if __name__ == "__main__":
    sys.exit(main())
