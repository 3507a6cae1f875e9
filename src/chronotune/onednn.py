"""Linear layers computed by oneDNN, on processors where torch's first choice for them is slow.

On a CPU torch multiplies 32-bit matrices by MKL, which keeps its AVX-512 kernels for Intel's processors. oneDNN, part
of torch too, has no such preference: on AMD EPYCs with AVX-512 it is 1.1 to more than 2 times as fast. It adds up in
another order, so results differ in the last places, as they do between processors anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from chronotune.forwards import replaced

CPUINFO = Path("/proc/cpuinfo")
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
NEVER = "2"
"""What stands there where no more memory is promised than there is."""
FEWEST_INPUTS, FEWEST_OUTPUTS = 4, 32
"""Of a layer that oneDNN gets: of LoRA's two thin ones, that is the second."""
FEWEST_ROWS = 640
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

    Backward passes may follow outside. Layers whose numbers are not 32-bit floats on a CPU stay as they are, and all
    where memory may be refused.
    """
    layers = [layer for layer in model.modules() if _is_suited(layer)] if is_faster() and not may_be_refused() else []
    with replaced({layer: functools.partial(_forward, layer) for layer in layers}):
        yield


def _is_suited(layer: nn.Module) -> bool:
    """Whether it is a linear layer on a CPU that has so many inputs and outputs, and that nobody else has changed."""
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    is_wide = layer.in_features >= FEWEST_INPUTS and layer.out_features >= FEWEST_OUTPUTS
    return bool(is_wide and layer.weight.device.type == "cpu")


def _forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
    is_32_bit = inputs.dtype == layer.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not is_32_bit or inputs.numel() < FEWEST_ROWS * layer.in_features:
        return functional.linear(inputs, layer.weight, layer.bias)
    rows = inputs.flatten(0, -2).contiguous()
    product: Tensor = _Linear.apply(rows, layer.weight, layer.bias)
    return product.unflatten(0, inputs.shape[:-1])


class _Linear(torch.autograd.Function):  # type: ignore[misc]  # torch does not type it
    """`functional.linear` of contiguous rows; torch has no gradient for the product that its compiler uses.

    All operands are contiguous or transposed so: with other strides oneDNN's product takes a thousand times as long.
    What the backward pass keeps is what torch's own keeps, which `memory` counts.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        for_rows, for_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if for_weight else None, weight if for_rows else None)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        return (
            None if weight is None else _product(gradient, weight.t()),
            None if rows is None else _of_weight(gradient, rows),
            gradient.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _of_weight(gradient: Tensor, rows: Tensor) -> Tensor:
    """The weight's gradient. Its operands are transposed, and oneDNN is faster with the narrower one on the left."""
    if rows.shape[1] < gradient.shape[1]:
        return _product(rows.t(), gradient.t()).t()
    return _product(gradient.t(), rows.t())


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of `left` and the transposed `right`, plus the bias."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product
