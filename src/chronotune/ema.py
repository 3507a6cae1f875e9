"""The exponential moving average of a training run's weights: what is scored while the learning rate is still high.

At a high rate weights jump about the valley that they are in, and only settle when the rate falls, which it does late.
So a score in between says too little of a run at a high rate, and whoever stops early by it stops the best ones. The
mean of the last steps' weights lies nearer to where the run would settle: Sanyal et al. 2023, "Early weight averaging
meets high learning rates"; Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
durations".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

REACH = 1 / 8
"""Steps that the mean reaches back, as a share of those made, at the peak learning rate."""


class Ema:
    """The mean of a model's trained parameters, which the model has unless it is in training.

    It reaches back over a share of the steps made so far, and over less of them as the learning rate falls: at its end
    the mean is the weights themselves, to the last bit.

    Attributes:
        held: By name, what the model does not have now: the weights, or inside of `training` their mean.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin with the parameters as they are, weights and mean."""
        self._parameters = parameters
        self.held = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @contextmanager
    def training(self, model: torch.nn.Module) -> Iterator[None]:
        """Inside the block `model` has the weights and is in training mode."""
        self._swap()
        model.train()
        try:
            yield
        finally:
            model.eval()
            self._swap()

    def add(self, steps: int, left: float) -> None:
        """Take in the weights after a step; inside of `training` only.

        Args:
            steps: Made so far, this one included.
            left: What the next learning rate is of its peak, 0 to 1.
        """
        import torch

        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.held.values()), weights, 1 / (1 + REACH * steps * left))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights to train on from; outside of `training` only.

        Raises:
            KeyError: One of them is missing.
        """
        for name, held in self.held.items():
            held.copy_(weights[name])

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.held[name] = self.held[name], parameter.data
