"""Train the tiny Chronos-2 from scratch on synthetic series.

    python models/tiny/train.py --steps 16000 --minutes 120 --seed 1      what `make tiny` does

Whichever budget is nearer to its end, steps or minutes, sets the learning rate: where the minutes suffice, two runs on
one machine give the same weights, for batch i depends on (seed, i) alone and the initial weights on the seed. A run
that was cut short goes on where it was when the same command is given again; `--run` is where it keeps its state.
Beside other work, give it one core of its own and --threads 1: two threads wait for each other at every operation,
and starve.
"""

import argparse
import hashlib
import json
import logging
import math
import sys
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
RISE, FALL = 0.01, 0.4  # shares of the budget in which the learning rate rises and falls

log = logging.getLogger("tiny")


def stream(seed: int, tokens: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Endless keyword arguments of `Chronos2Model.forward`: batches `first`, `first` + 1, ... of `seed`.

    They are made between the steps: a batch costs a tenth of a step, and a second process would take it from torch.
    """
    for index in count(first):
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
    """Share of the peak learning rate at `progress` in [0, 1] of the budget: a short rise, a level, a fall to 0."""
    return max(0.0, min(1.0, progress / RISE, (1.0 - progress) / FALL))


def training_loss(model: Chronos2Model, batch: dict[str, Any]) -> torch.Tensor:
    """Loss of the library per target row: its mean also counts the covariate rows, which carry no loss."""
    targets = int(batch["future_target"].isfinite().any(dim=1).sum())
    loss = model(**batch).loss
    assert loss is not None
    per_target: torch.Tensor = loss * (len(batch["future_target"]) / max(targets, 1))
    return per_target


def optimizers(model: Chronos2Model, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the encoder (Jordan et al. 2024), AdamW for embeddings, head and gains.

    `rate` is that of Muon, scaled to steps of AdamW's size (Liu et al. 2025, arXiv 2502.16982), and AdamW's own.
    """
    matrices = {name: p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("encoder.")}
    others = [p for name, p in model.named_parameters() if name not in matrices]
    return [
        torch.optim.Muon(matrices.values(), lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


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


class Run:
    """A training run: model, optimizers, counts, and a loss curve with one entry every `LOG_SECONDS`.

    Attributes:
        seconds: Wall time trained for, over all sittings.
    """

    def __init__(self, settings: dict[str, Any], minutes: float) -> None:
        self.settings, self.minutes = settings, minutes
        self.model = new_model(settings["seed"]).eval()  # no dropout: no series comes twice
        self.optimizers = optimizers(self.model, settings["rate"])
        self.steps = self.rows = self.target_rows = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self._recent: list[float] = []

    @property
    def progress(self) -> float:
        """Share of the budget used, of steps or of time: 1 or more when it is spent."""
        return max(self.steps / int(self.settings["budget_steps"]), self.seconds / (60 * self.minutes))

    def step(self, batch: dict[str, Any]) -> None:
        """One optimizer step."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.settings["rate"] * rate_share(self.progress)
        loss = training_loss(self.model, batch)
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        self.rows += len(batch["context"])
        self.target_rows += int(batch["future_target"].isfinite().any(dim=1).sum())
        self._recent.append(loss.item())

    def note(self) -> None:
        """Log the mean loss since the last note, and the mean speed."""
        mean = sum(self._recent) / max(1, len(self._recent))
        self.curve.append({"step": self.steps, "loss": mean})
        self._recent = []
        log.info("%5.0f s  step %6d  loss %.4f  %.0f rows/s", self.seconds, self.steps, mean, self.rows / self.seconds)

    def record(self) -> dict[str, Any]:
        """Content of TRAINING.json."""
        counts = {name: getattr(self, name) for name in ("steps", "rows", "target_rows")}
        speed = {"minutes": round(self.seconds / 60, 1), "rows_per_second": round(self.rows / self.seconds, 1)}
        return {**self.settings, **counts, **speed, "loss_curve": thin(self.curve, CURVE_POINTS)}

    def keep(self, file: Path) -> None:
        """Write all that `go_on` needs, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        counts = {name: getattr(self, name) for name in ("steps", "rows", "target_rows", "seconds", "curve")}
        weights, moments = self.model.state_dict(), [one.state_dict() for one in self.optimizers]
        state = {"settings": self.settings, "counts": counts, "weights": weights, "optimizers": moments}
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    def go_on(self, file: Path) -> None:
        """Continue a run with the same settings where it was kept last.

        Raises:
            SystemExit: It has other settings.
        """
        state = torch.load(file, weights_only=True)
        if state["settings"] != self.settings:
            sys.exit(f"{file} must be of a run with these settings, but it has {state['settings']}; delete or move it")
        self.model.load_state_dict(state["weights"])
        for optimizer, moments in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        vars(self).update(state["counts"])


def train(run: Run, state: Path) -> None:
    """Train until the budget is spent, logging and keeping the state on the way."""
    batches = stream(run.settings["seed"], run.settings["tokens_per_step"], first=run.steps)
    noted = kept = run.seconds
    while run.progress < 1.0:
        begin = time.monotonic()
        run.step(next(batches))
        run.seconds += time.monotonic() - begin
        if run.seconds - noted >= LOG_SECONDS:
            run.note()
            noted = run.seconds
        if run.seconds - kept >= SAVE_SECONDS:
            run.keep(state)
            kept = run.seconds
    run.note()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--steps", type=int, default=16_000, help="training steps")
    parser.add_argument("--minutes", type=float, default=120.0, help="wall time at most, over all sittings")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and of every batch")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the model's files")
    parser.add_argument("--run", type=Path, default=Path("build/tiny"), help="folder of the state of an unfinished run")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--tokens", type=int, default=4400, help="tokens (patches of 16 steps) in a training step")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    return parser.parse_args(argv)


def main() -> None:
    """Train and save."""
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    run = Run(
        {
            "data": "synthetic only: prior.py",
            "seed": args.seed,
            "budget_steps": args.steps,
            "rate": args.rate,
            "tokens_per_step": args.tokens,
            "parameters": sum(p.numel() for p in new_model(args.seed).parameters()),
            "torch": str(torch.__version__),
        },
        args.minutes,
    )
    state = args.run / "state.pt"
    if state.exists():
        run.go_on(state)
        log.info("going on at step %d, %.0f s", run.steps, run.seconds)
    train(run, state)
    save(run.model, args.out, run.record())
    state.unlink(missing_ok=True)
    digest = hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    log.info("saved after %d steps, %d rows; write into models/tiny.yaml:", run.steps, run.rows)
    log.info("revision: %s", digest)


if __name__ == "__main__":
    main()
