"""Train the tiny Chronos-2 from scratch on synthetic series.

    python models/tiny/train.py --minutes 65 --threads 1 --seed 1 --out models/tiny

Batch i depends on (seed, i) alone and the initial weights on the seed. How many steps fit, and so the learning
rate of each, depends on the machine: two runs agree only as far as their clocks do. Beside other work, give it one
core of its own and --threads 1: two threads wait for each other at every operation, and starve.
"""

import argparse
import hashlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.layers import Chronos2LayerNorm
from chronos.chronos2.model import Chronos2Model
from prior import sample_batch

QUANTILES = [0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99]
LOG_SECONDS = 30.0
SAVE_SECONDS = 300.0
CURVE_POINTS = 20

log = logging.getLogger("tiny")


def stream(seed: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Endless keyword arguments of `Chronos2Model.forward`: batches 0, 1, 2, ... of `seed`.

    They are made between the steps: a batch costs a tenth of a step, and a second process would take it from torch.
    """
    for index in count():
        batch = sample_batch(seed, index, tokens)
        yield {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in batch.items()}


def model_config() -> Chronos2CoreConfig:
    """Configuration of the tiny model in the format of amazon/chronos-2, a size of 1.4 million parameters."""
    return Chronos2CoreConfig(
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=4,
        num_heads=4,
        dropout_rate=0.1,
        chronos_pipeline_class="Chronos2Pipeline",
        chronos_config={
            "context_length": 2048,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "max_output_patches": 64,
            "output_patch_size": 16,
            "quantiles": QUANTILES,
            "time_encoding_scale": 2048,
            "use_arcsinh": True,
            "use_reg_token": True,
        },
    )


def new_model(seed: int) -> Chronos2Model:
    """Model with fresh weights; normalisation gains start at 1, since the library's 0.05 mutes every block."""
    torch.manual_seed(seed)
    model = Chronos2Model(model_config())
    for module in model.modules():
        if isinstance(module, Chronos2LayerNorm):
            torch.nn.init.ones_(module.weight)
    return model


def rate_share(progress: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1] of the budget: a short rise, then a fall to 0."""
    warm = 0.02
    return progress / warm if progress < warm else max(0.0, (1.0 - progress) / (1.0 - warm))


def training_loss(model: Chronos2Model, batch: dict[str, Any]) -> torch.Tensor:
    """Loss of the library per target row: its mean also counts the covariate rows, which carry no loss."""
    targets = int(batch["future_target"].isfinite().any(dim=1).sum())
    loss = model(**batch).loss
    assert loss is not None
    per_target: torch.Tensor = loss * (len(batch["future_target"]) / max(targets, 1))
    return per_target


def save(model: Chronos2Model, out: Path, record: dict[str, Any]) -> None:
    """Write the model and its record to `out`, every file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as folder:
        partial = Path(folder)
        model.save_pretrained(partial)
        (partial / "TRAINING.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for name in ("config.json", "model.safetensors", "TRAINING.json"):
            (partial / name).replace(out / name)


def thin(curve: list[dict[str, float]], points: int) -> list[dict[str, float]]:
    """Average neighbouring entries of the loss curve until about `points` remain; each keeps its last step."""
    size = math.ceil(len(curve) / points) or 1
    chunks = [curve[i : i + size] for i in range(0, len(curve), size)]
    return [{"step": c[-1]["step"], "loss": round(sum(x["loss"] for x in c) / len(c), 4)} for c in chunks]


class Progress:
    """Counts of a run, and its loss curve with one entry every `LOG_SECONDS`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.steps = self.rows = self.target_rows = 0
        self.curve: list[dict[str, float]] = []
        self._recent: list[float] = []
        self._rows_logged = 0

    def add(self, batch: dict[str, Any], loss: float) -> None:
        """Count one step."""
        self.steps += 1
        self.rows += len(batch["context"])
        self.target_rows += int(batch["future_target"].isfinite().any(dim=1).sum())
        self._recent.append(loss)

    def close_interval(self, seconds: float, elapsed: float) -> None:
        """Log the mean loss and the speed of the last `seconds` seconds."""
        mean = sum(self._recent) / max(1, len(self._recent))
        speed = (self.rows - self._rows_logged) / max(seconds, 1e-9)
        self.curve.append({"step": self.steps, "loss": mean})
        self._recent, self._rows_logged = [], self.rows
        log.info("%5.0f s  step %6d  loss %.4f  %.0f rows/s", elapsed, self.steps, mean, speed)

    def record(self) -> dict[str, Any]:
        """Content of TRAINING.json."""
        counts = {"steps": self.steps, "rows": self.rows, "target_rows": self.target_rows}
        return {**self.settings, **counts, "loss_curve": thin(self.curve, CURVE_POINTS)}


def train(model: Chronos2Model, args: argparse.Namespace, progress: Progress) -> None:
    """Run AdamW for `args.minutes` of wall time, logging and saving on the way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    batches = stream(args.seed, args.tokens)
    model.eval()  # no dropout: no series comes twice
    begin = logged = saved = time.monotonic()
    while (now := time.monotonic()) - begin < args.minutes * 60:
        if now - logged >= LOG_SECONDS:
            progress.close_interval(now - logged, now - begin)
            logged = now
        if now - saved >= SAVE_SECONDS:
            save(model, args.out, progress.record() | {"complete": False})
            saved = now
        for group in optimizer.param_groups:
            group["lr"] = args.rate * rate_share((now - begin) / (args.minutes * 60))
        batch = next(batches)
        loss = training_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.add(batch, loss.item())
    progress.close_interval(time.monotonic() - logged, time.monotonic() - begin)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=45.0, help="wall time to train for")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and of every batch")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the model's files")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--tokens", type=int, default=4400, help="tokens (patches of 16 steps) in a training step")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    return parser.parse_args(argv)


def main() -> None:
    """Train and save."""
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    model = new_model(args.seed)
    settings = {
        "data": "synthetic only: prior.py",
        "seed": args.seed,
        "minutes": args.minutes,
        "rate": args.rate,
        "tokens_per_step": args.tokens,
        "threads": args.threads,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
    }
    progress = Progress(settings)
    train(model, args, progress)
    save(model, args.out, progress.record() | {"complete": True})
    digest = hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    log.info("saved after %d steps, %d rows; write into models/tiny.yaml:", progress.steps, progress.rows)
    log.info("revision: %s", digest)


if __name__ == "__main__":
    main()
