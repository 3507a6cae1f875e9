"""Linear layers by oneDNN: the same products, only where they are faster, and put back afterwards."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from chronotune import onednn
from engine_parts import small_tuner

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this build of torch has no oneDNN",
)


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it is."""
    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "may_be_refused", lambda: False)
    monkeypatch.setattr(onednn, "FEWEST_ROWS", 1)


@pytest.fixture
def asked_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file in which processors are looked up, on a machine with AVX-512."""
    monkeypatch.undo()
    onednn.is_faster.cache_clear()
    monkeypatch.setattr(onednn, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    yield tmp_path / "cpuinfo"
    onednn.is_faster.cache_clear()


def _inputs(kind: str) -> Tensor:
    whole = torch.randn(5, 12, 64, generator=torch.Generator().manual_seed(0))
    match kind:
        case "whole":
            return whole
        case "sliced":
            return whole[:, -3:]
        case "one of each":
            return whole[:, :1]
        case "transposed":
            return whole.transpose(0, 1)
        case _:
            return whole[0, 0].expand(4, 64)


def _of_dense(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same, for contiguous matrices and transposed ones alone: of others it is a thousand times as slow."""

    def checked(*matrices: Tensor) -> Tensor:
        assert all(one.is_contiguous() or one.t().is_contiguous() for one in matrices[:2])
        return product(*matrices)

    return checked


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", ["whole", "sliced", "one of each", "transposed", "expanded"])
@pytest.mark.parametrize("loss", ["squares", "sum"])
@pytest.mark.parametrize("shape", [(64, 48), (64, 96), (8, 64)])
def test_product_and_gradients_are_those_of_torch(
    shape: tuple[int, int], loss: str, kind: str, trained: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the shapes and strides; also of a frozen layer, and where the gradient is one number for all."""
    monkeypatch.setattr(onednn, "_product", _of_dense(onednn._product))
    torch.manual_seed(1)
    layer = nn.Linear(*shape, bias=bias).requires_grad_(trained)
    found = []
    for by_onednn in (False, True):
        given = _inputs(kind)[..., : shape[0]]
        inputs = given.clone().requires_grad_() if kind == "whole" else given.detach().requires_grad_()
        layer.zero_grad()
        if by_onednn:
            with onednn.linear_layers(nn.ModuleList([layer])):
                assert "forward" in vars(layer)
                outputs = layer(inputs)
        else:
            outputs = layer(inputs)
        (outputs.square() if loss == "squares" else outputs).sum().backward()
        gradients = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
        assert len(gradients) == (1 + bias if trained else 0)
        assert inputs.grad is not None
        found.append([outputs.detach(), inputs.grad, *gradients])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-4)


def test_it_is_computed_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the block alone, and wrong shapes are refused there too."""
    counted = list[tuple[int, ...]]()
    product = onednn._product

    def counting(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
        counted.append(tuple(right.shape))
        return product(left, right, bias)

    monkeypatch.setattr(onednn, "_product", counting)
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(8, 64))
    with onednn.linear_layers(model):
        model(torch.randn(3, 64))
        with pytest.raises(RuntimeError):
            model(torch.randn(3, 65))
    assert counted == [(32, 64), (64, 8), (32, 64)], "that of few outputs stays torch's"
    model(torch.randn(3, 64))
    assert len(counted) == 3
    assert not any("forward" in vars(layer) for layer in model)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_training_is_the_same_but_for_last_places(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of twenty steps, with the bound that parity with the library has."""

    def losses(by_onednn: bool) -> list[float]:
        monkeypatch.setattr(onednn, "is_faster", lambda: by_onednn)
        tuner = small_tuner(mode, dropout=0.0, budget_windows=60, rungs=(60,))
        return [tuner.advance(3 * step).loss for step in range(1, 21)]

    ours, torchs = losses(True), losses(False)
    assert ours != torchs, "the last places tell that another library was at work"
    assert ours == pytest.approx(torchs, rel=1e-5)


@pytest.mark.parametrize(("rows", "products"), [(4, 0), (5, 1), (6, 1)])
def test_small_products_stay_with_torch(rows: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call would cost what they save."""
    counted = list[Tensor]()

    def counting(left: Tensor, *_: object) -> Tensor:
        counted.append(left)
        return left

    monkeypatch.setattr(onednn, "_product", counting)
    monkeypatch.setattr(onednn, "FEWEST_ROWS", 5)
    with onednn.linear_layers(layer := nn.Linear(64, 64)):
        layer(torch.randn(rows, 64))
    assert len(counted) == products


@pytest.mark.parametrize("numbers", ["bfloat16", "autocast", "float64"])
def test_other_numbers_stay_with_torch(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have kernels of their own."""
    monkeypatch.setattr(onednn, "_product", None)
    kind = {"bfloat16": torch.bfloat16, "autocast": torch.float32, "float64": torch.float64}[numbers]
    layer, inputs = nn.Linear(64, 64).to(kind), torch.randn(3, 64, dtype=kind)
    with onednn.linear_layers(layer), torch.autocast("cpu", torch.bfloat16, enabled=numbers == "autocast"):
        outputs = layer(inputs)
        expected = functional.linear(inputs, layer.weight, layer.bias)
    assert torch.equal(outputs, expected)


@pytest.mark.parametrize(
    ("vendor", "capability", "faster"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_it_is_taken_where_mkl_is_slow(
    asked_machine: Path, vendor: str, capability: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MKL keeps its AVX-512 kernels for Intel's processors."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    asked_machine.write_text(f"vendor_id\t: {vendor}\n")
    assert onednn.is_faster() is faster


def test_an_unknown_machine_keeps_torchs_choice(asked_machine: Path) -> None:
    """Where there is no /proc/cpuinfo."""
    assert not asked_machine.exists()
    assert onednn.is_faster() is False


def _kept(by_onednn: bool, trained: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of inputs that a product keeps for the backward pass."""
    layer, kept = nn.Linear(64, 48).requires_grad_(trained), list[Tensor]()
    monkeypatch.setattr(onednn, "is_faster", lambda: by_onednn)
    inputs = torch.randn(4, 3, 64, requires_grad=True)
    with onednn.linear_layers(layer), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda one: one):
        layer(inputs)
    assert kept
    return sum(one.nbytes for one in kept if one.untyped_storage().data_ptr() == inputs.data_ptr())


@pytest.mark.parametrize("trained", [False, True])
def test_it_keeps_what_torch_keeps(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step takes is predicted: a frozen layer does not keep its inputs."""
    ours, torchs = (_kept(by_onednn, trained, monkeypatch) for by_onednn in (True, False))
    assert ours == torchs == (3072 if trained else 0)


def test_results_may_be_changed_in_place_and_derived_once() -> None:
    """As those of any layer; a second derivative is refused, where the product would say zero."""
    layer, inputs = nn.Linear(64, 48), torch.randn(4, 3, 64, requires_grad=True)
    with onednn.linear_layers(layer):
        outputs = layer(inputs)
    outputs += 1
    [gradient] = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_it_is_left_where_memory_may_be_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It crashes when it gets none: a limit that is set between two steps counts for the second."""
    monkeypatch.undo()
    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "OVERCOMMIT", Path("/none"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 0))
    layer = nn.Linear(64, 64)
    with onednn.linear_layers(layer):
        assert "forward" in vars(layer)
    limited = getattr(resource, kind)
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (2**40 if asked == limited else resource.RLIM_INFINITY, 0))
    assert onednn.may_be_refused()
    with onednn.linear_layers(layer):
        assert "forward" not in vars(layer)


@pytest.mark.parametrize(("setting", "refused"), [("0", False), ("1", False), ("2", True)])
def test_a_system_that_never_overcommits_refuses(
    setting: str, refused: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel's setting; where there is no such file, nothing is refused."""
    monkeypatch.undo()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 0))
    monkeypatch.setattr(onednn, "OVERCOMMIT", tmp_path / "overcommit_memory")
    assert not onednn.may_be_refused()
    onednn.OVERCOMMIT.write_text(f"{setting}\n")
    assert onednn.may_be_refused() is refused
