import pytest
import torch
from torch import nn

from mnemon.adapters import Delta, Dense, LowRank, attach, fold
from mnemon.errors import MnemonError


@pytest.fixture
def sites() -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    return {"k": nn.Linear(4, 3, bias=False), "v": nn.Linear(4, 3)}


def deltas() -> dict[str, Delta]:
    torch.manual_seed(1)
    return {"k": LowRank(torch.randn(3, 2), torch.randn(2, 4)), "v": Dense(torch.randn(3, 4))}


def test_attached_and_folded_layers_add_delta_x(sites: dict[str, nn.Linear]) -> None:
    inputs = torch.randn(2, 5, 4)
    expected = {site: layer(inputs) + inputs @ deltas()[site].matrix().T for site, layer in sites.items()}
    for put in (attach, fold):
        with put(sites, deltas()):
            for site, layer in sites.items():
                torch.testing.assert_close(layer(inputs), expected[site])


def test_attaching_never_touches_the_weight_and_leaves_no_hook(sites: dict[str, nn.Linear]) -> None:
    before = {site: (layer.weight.data_ptr(), layer.weight.clone()) for site, layer in sites.items()}
    attached = attach(sites, deltas())
    for site, layer in sites.items():
        assert layer.weight.data_ptr() == before[site][0] and torch.equal(layer.weight, before[site][1])
    attached.remove()
    attached.remove()
    assert not any(layer._forward_hooks for layer in sites.values())


def test_two_attached_changes_add_up(sites: dict[str, nn.Linear]) -> None:
    inputs = torch.randn(2, 4)
    layer = sites["v"]
    expected = layer(inputs) + 2 * inputs @ deltas()["v"].matrix().T
    with attach(sites, deltas()), attach(sites, deltas()):
        torch.testing.assert_close(layer(inputs), expected)


def test_gradients_reach_an_attached_delta_and_not_the_base(sites: dict[str, nn.Linear]) -> None:
    delta = LowRank(torch.zeros(3, 2), torch.randn(2, 4), trainable=True)
    sites["k"].requires_grad_(False)
    with attach(sites, {"k": delta}):
        sites["k"](torch.randn(2, 4)).sum().backward()
    assert delta.up.grad is not None and delta.up.grad.abs().sum() > 0
    assert sites["k"].weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unfolding_is_exact_in_every_dtype(sites: dict[str, nn.Linear], dtype: torch.dtype) -> None:
    layers = {site: layer.to(dtype) for site, layer in sites.items()}
    before = {site: layer.weight.clone() for site, layer in layers.items()}
    with fold(layers, deltas()):
        with fold(layers, deltas()):
            pass
        assert all(layer.weight.dtype == dtype for layer in layers.values())
    assert all(torch.equal(before[site], layer.weight) for site, layer in layers.items())


def test_unfolding_happens_after_an_error_too(sites: dict[str, nn.Linear]) -> None:
    before = sites["k"].weight.clone()
    with pytest.raises(RuntimeError, match="stop"), fold(sites, deltas()):
        raise RuntimeError("stop")
    assert torch.equal(before, sites["k"].weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_folding_refuses_what_is_not_finite_and_folds_nothing(sites: dict[str, nn.Linear], bad: float) -> None:
    before = sites["k"].weight.clone()
    with pytest.raises(MnemonError, match="'v'.*not finite"):
        fold(sites, deltas() | {"v": Dense(torch.full((3, 4), bad))})
    assert torch.equal(before, sites["k"].weight)


def test_folding_refuses_what_overflows_the_weights_dtype(sites: dict[str, nn.Linear]) -> None:
    with pytest.raises(MnemonError, match="'k'.*float16"):
        fold({"k": sites["k"].half()}, {"k": Dense(torch.full((3, 4), 1e6))})


@pytest.mark.parametrize("put", [attach, fold])
def test_deltas_of_another_base_are_refused(sites: dict[str, nn.Linear], put) -> None:
    with pytest.raises(MnemonError, match="no layer 'q'"):
        put(sites, deltas() | {"q": Dense(torch.zeros(3, 4))})
    with pytest.raises(MnemonError, match=r"'v' has shape \(3, 5\)"):
        put(sites, deltas() | {"v": Dense(torch.zeros(3, 5))})
    assert not any(layer._forward_hooks for layer in sites.values())
