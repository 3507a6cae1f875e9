"""A trainable copy of a Chronos-2 model, and random numbers of its own."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from chronotune.config.space import Hyperparameters
from chronotune.errors import ChronotuneError
from chronotune.memory import Architecture

if TYPE_CHECKING:
    import torch
    from chronos.chronos2.model import Chronos2Model
    from peft import PeftModel
    from torch import Tensor

_ADAPTED = (  # the default of Chronos2Pipeline.fit
    "self_attention.q",
    "self_attention.v",
    "self_attention.k",
    "self_attention.o",
    "output_patch_embedding.output_layer",
)


class Trainable:
    """A copy of a model in which only the parameters to train require gradients.

    Attributes:
        model: The `Chronos2Model`, adapters inside it when there are any.
        parameters: What is trained, by name.
        output_patches: Patches that cover the horizon.
    """

    def __init__(
        self, base: Chronos2Model, hyperparameters: Hyperparameters, horizon: int, device: torch.device
    ) -> None:
        """Copy `base` to `device` and add adapters if `hyperparameters` ask for them.

        Raises:
            ChronotuneError: Adapters are asked for without a rank, or without `peft` installed.
        """
        self.model: Chronos2Model = copy.deepcopy(base).requires_grad_(True).to(device).eval()
        self.output_patches = math.ceil(horizon / self.model.chronos_config.output_patch_size)
        _allow_patches(self.model, self.output_patches)
        self._adapted = _add_adapters(self.model, hyperparameters) if hyperparameters.mode == "lora" else None
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def architecture(self) -> Architecture:
        """What decides how much memory training takes."""
        parameters = sum(p.numel() for p in self.model.parameters())
        trained = sum(p.numel() for p in self.parameters.values())
        return Architecture.of(self.model.config, self.model.chronos_config, parameters, trained)

    def merged(self) -> Chronos2Model:
        """A copy on the CPU without adapters that forecasts the same."""
        if self._adapted is None:
            return copy.deepcopy(self.model).cpu()
        return copy.deepcopy(self._adapted).cpu().merge_and_unload()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set the trained parameters.

        Raises:
            ValueError: Names or shapes are not those of `parameters`.
        """
        import torch

        ours = {name: tuple(p.shape) for name, p in self.parameters.items()}
        if ours != {name: tuple(tensor.shape) for name, tensor in weights.items()}:
            raise ValueError("its parameters have other names or shapes")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])


def _allow_patches(model: Chronos2Model, patches: int) -> None:
    """Let the model forecast the horizon that it is trained on in one go, and say so in the config, as `fit` does.

    The context length stays: a longer one than the model's own is refused, not trained.
    """
    model.chronos_config.max_output_patches = max(model.chronos_config.max_output_patches, patches)
    model.config.chronos_config = asdict(model.chronos_config)


def _add_adapters(model: Chronos2Model, hyperparameters: Hyperparameters) -> PeftModel:
    """Put LoRA adapters into `model` (Hu et al. 2021): alpha is twice the rank; all else is frozen."""
    if (rank := hyperparameters.lora_rank) is None:
        raise ChronotuneError("mode lora needs a lora_rank, but it is missing; add it to the search space")
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ChronotuneError("mode lora needs the package peft, which is missing; pip install peft") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(_ADAPTED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers deprecates
        return get_peft_model(model, config)


def fingerprint(model: Chronos2Model) -> str:
    """A short hash that tells base models apart: of the first 64 numbers of every parameter."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        head = parameter.detach().flatten()[:64].float().cpu().numpy()
        digest.update(name.encode() + str(tuple(parameter.shape)).encode() + head.tobytes())
    return digest.hexdigest()[:16]


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 (NVIDIA from Ampere on): the library's rule for mixed precision."""
    import torch

    return device.type == "cuda" and bool(torch.cuda.get_device_capability(device) >= (8, 0))


class OwnRandomness:
    """torch's random numbers for one training run; nothing outside changes them, and they change nothing outside.

    Attributes:
        state: Of the generators between two uses; by device kind, tensors of bytes.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        """Start from `seed`, on the CPU and on `device`."""
        import torch

        on_gpu = device.type == "cuda"
        self._gpus = [torch.cuda.current_device() if device.index is None else device.index] if on_gpu else []
        with torch.random.fork_rng(devices=self._gpus):
            torch.manual_seed(seed)
            self.state = self._current()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block torch draws from this run's numbers; afterwards it goes on where it was."""
        import torch

        with torch.random.fork_rng(devices=self._gpus):
            self.rewind(self.state)
            yield
            self.state = self._current()

    def now(self) -> dict[str, Tensor]:
        """The state inside a block of `active`."""
        return self._current()

    def rewind(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state that `now` gave, inside the same block."""
        import torch

        torch.set_rng_state(state["cpu"])
        for gpu in self._gpus:
            torch.cuda.set_rng_state(state["cuda"], gpu)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved state; generators of a kind of device that it lacks stay as seeded."""
        self.state = {kind: state.get(kind, ours) for kind, ours in self.state.items()}

    def _current(self) -> dict[str, Tensor]:
        import torch

        state = {"cpu": torch.get_rng_state()}
        for gpu in self._gpus:
            state["cuda"] = torch.cuda.get_rng_state(gpu)
        return state
