"""Linear layers computed by oneDNN, on processors where torch's first choice for them is slow.

On a CPU torch multiplies 32-bit matrices by MKL, which keeps its AVX-512 kernels for Intel's processors. oneDNN, part
of torch too, has no such preference: on an AMD EPYC with AVX-512 it is more than twice as fast. It adds up in another
order, so results differ in the last places, as they do between processors anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CPUINFO = Path("/proc/cpuinfo")
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
NEVER = "2"
"""What stands there where no more memory is promised than there is."""
SMALLEST = 32
"""Fewest inputs and outputs of a layer that oneDNN gets: not LoRA's thin ones."""
FEWEST_ROWS = 256
"""Of a product that oneDNN gets: below, the call costs what the product saves."""


@functools.cache
def is_faster() -> bool:
    """Whether this machine's 32-bit products are faster by oneDNN: AVX-512, and known not to be Intel's (on Linux)."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    if not has_both or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    is_wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return is_wide and CPUINFO.exists() and "GenuineIntel" not in CPUINFO.read_text()


def may_be_refused() -> bool:
    """Whether the system refuses memory beyond a limit, where others end the process: oneDNN crashes when refused."""
    import resource  # not on Windows, where nobody asks

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        return True
    return OVERCOMMIT.exists() and OVERCOMMIT.read_text().strip() == NEVER


@contextmanager
def linear_layers(model: nn.Module) -> Iterator[None]:
    """Inside the block, forward passes of this model's linear layers go by oneDNN where that is faster.

    Backward passes may follow outside. Only the `forward`s of these instances are replaced, and put back afterwards.
    Layers whose numbers are not 32-bit floats on a CPU stay as they are, and all where memory may be refused.
    """
    layers = [layer for layer in model.modules() if _is_wide(layer)] if is_faster() and not may_be_refused() else []
    for layer in layers:
        vars(layer)["forward"] = functools.partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _is_wide(layer: nn.Module) -> bool:
    """Whether it is a linear layer on a CPU that has so many inputs and outputs, and that nobody else has changed."""
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    return bool(layer.weight.device.type == "cpu" and min(layer.weight.shape) >= SMALLEST)


def _forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
    is_32_bit = inputs.dtype == layer.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not is_32_bit or inputs.numel() < FEWEST_ROWS * layer.in_features:
        return functional.linear(inputs, layer.weight, layer.bias)
    product: Tensor = _Linear.apply(inputs, layer.weight, layer.bias)
    return product


class _Linear(torch.autograd.Function):  # type: ignore[misc]  # torch does not type it
    """`functional.linear`; torch has no gradient for the product that its compiler uses."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs.contiguous(), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_output,), (inputs, weight) = gradients, ctx.saved_tensors
        for_inputs, for_weight, for_bias = ctx.needs_input_grad
        of_output = of_output.contiguous()
        rows = of_output.flatten(0, -2)
        return (
            _product(of_output, weight.t()) if for_inputs else None,
            _product(rows.t(), inputs.flatten(0, -2).t()) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of `left` and the transposed `right`, plus the bias."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product
