import pytest
import torch
from torch import nn

from mnemon.adapters import Delta, Dense, LowRank, attach, merge
from mnemon.errors import MnemonError


@pytest.fixture
def target_modules() -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    return {"k": nn.Linear(4, 3, bias=False), "v": nn.Linear(4, 3)}


def deltas() -> dict[str, Delta]:
    torch.manual_seed(1)
    return {"k": LowRank(torch.randn(3, 2), torch.randn(2, 4)), "v": Dense(torch.randn(3, 4))}


def test_attached_and_merged_layers_add_delta_x(target_modules: dict[str, nn.Linear]) -> None:
    inputs = torch.randn(2, 5, 4)
    expected = {
        target: layer(inputs) + inputs @ deltas()[target].matrix().T for target, layer in target_modules.items()
    }
    for put in (attach, merge):
        with put(target_modules, deltas()):
            for target, layer in target_modules.items():
                torch.testing.assert_close(layer(inputs), expected[target])


def test_attaching_never_touches_the_weight_and_leaves_no_hook(target_modules: dict[str, nn.Linear]) -> None:
    before = {target: (layer.weight.data_ptr(), layer.weight.clone()) for target, layer in target_modules.items()}
    attached = attach(target_modules, deltas())
    for target, layer in target_modules.items():
        assert layer.weight.data_ptr() == before[target][0] and torch.equal(layer.weight, before[target][1])
    attached.remove()
    attached.remove()
    assert not any(layer._forward_hooks for layer in target_modules.values())


def test_two_attached_changes_add_up(target_modules: dict[str, nn.Linear]) -> None:
    inputs = torch.randn(2, 4)
    layer = target_modules["v"]
    expected = layer(inputs) + 2 * inputs @ deltas()["v"].matrix().T
    with attach(target_modules, deltas()), attach(target_modules, deltas()):
        torch.testing.assert_close(layer(inputs), expected)


def test_gradients_reach_an_attached_delta_and_not_the_base(target_modules: dict[str, nn.Linear]) -> None:
    delta = LowRank(torch.zeros(3, 2), torch.randn(2, 4), trainable=True)
    target_modules["k"].requires_grad_(False)
    with attach(target_modules, {"k": delta}):
        target_modules["k"](torch.randn(2, 4)).sum().backward()
    assert delta.up.grad is not None and delta.up.grad.abs().sum() > 0
    assert target_modules["k"].weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unmerging_is_exact_in_every_dtype(target_modules: dict[str, nn.Linear], dtype: torch.dtype) -> None:
    layers = {target: layer.to(dtype) for target, layer in target_modules.items()}
    before = {target: layer.weight.clone() for target, layer in layers.items()}
    with merge(layers, deltas()):
        with merge(layers, deltas()):
            pass
        assert all(layer.weight.dtype == dtype for layer in layers.values())
    assert all(torch.equal(before[target], layer.weight) for target, layer in layers.items())


def test_unmerging_happens_after_an_error_too(target_modules: dict[str, nn.Linear]) -> None:
    before = target_modules["k"].weight.clone()
    with pytest.raises(RuntimeError, match="stop"), merge(target_modules, deltas()):
        raise RuntimeError("stop")
    assert torch.equal(before, target_modules["k"].weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_merging_refuses_what_is_not_finite_and_merges_nothing(
    target_modules: dict[str, nn.Linear], bad: float
) -> None:
    before = target_modules["k"].weight.clone()
    with pytest.raises(MnemonError, match="'v'.*not finite"):
        merge(target_modules, deltas() | {"v": Dense(torch.full((3, 4), bad))})
    assert torch.equal(before, target_modules["k"].weight)


def test_merging_refuses_what_overflows_the_weights_dtype(target_modules: dict[str, nn.Linear]) -> None:
    with pytest.raises(MnemonError, match="'k'.*float16"):
        merge({"k": target_modules["k"].half()}, {"k": Dense(torch.full((3, 4), 1e6))})


@pytest.mark.parametrize("put", [attach, merge])
def test_deltas_of_another_base_are_refused(target_modules: dict[str, nn.Linear], put) -> None:
    with pytest.raises(MnemonError, match="no layer 'q'"):
        put(target_modules, deltas() | {"q": Dense(torch.zeros(3, 4))})
    with pytest.raises(MnemonError, match=r"'v' has shape \(3, 5\)"):
        put(target_modules, deltas() | {"v": Dense(torch.zeros(3, 5))})
    assert not any(layer._forward_hooks for layer in target_modules.values())
