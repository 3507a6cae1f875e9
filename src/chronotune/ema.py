"""The exponential moving average of a training run's weights: what is scored while the learning rate is still high.

At a high rate weights jump about the valley that they are in, and only settle when the rate falls, which it does late.
So a score in between says too little of a run at a high rate, and whoever stops early by it stops the best ones. The
mean of the last steps' weights lies nearer to where the run would settle: Sanyal et al. 2023, "Early weight averaging
meets high learning rates"; Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
durations".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

REACH = 1 / 8
"""Steps that the mean reaches back, as a share of those made, at the peak learning rate."""


class Ema:
    """A second copy of a model's trained parameters, which can take their place.

    The mean reaches back over a share of the steps made so far, and over less of them as the learning rate falls:
    at its end the mean is the weights themselves, to the last bit.

    Attributes:
        held: By name, what is not in the model: the means, or after a `swap` the weights.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin with the parameters as they are."""
        self._parameters = parameters
        self.held = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def add(self, steps: int, left: float) -> None:
        """Take in the weights after a step.

        Args:
            steps: Made so far, this one included.
            left: What the next learning rate is of its peak, 0 to 1.
        """
        import torch

        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.held.values()), weights, 1 / (1 + REACH * steps * left))

    def swap(self) -> None:
        """Exchange what is in the model and what is held."""
        for name, parameter in self._parameters.items():
            parameter.data, self.held[name] = self.held[name], parameter.data

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what is held.

        Raises:
            KeyError: A parameter is missing.
        """
        for name, held in self.held.items():
            held.copy_(tensors[name])
