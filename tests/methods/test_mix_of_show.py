"""Gradient fusion in closed form: what the fused weights must do on the concepts' own words, and off them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mnemon.adapters import Dense
from mnemon.methods import TrainedConcept
from mnemon.methods.mix_of_show import MixOfShow, fuse, own_features
from mnemon.models import Base
from mnemon.sampling import Composed
from tests.contract.table import learn
from tests.tiny import tiny_sd_base

SMALL = {"rank": 2, "steps": 3, "batch_size": 2}
D1, D2 = 12, 20


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def two(base: Base) -> list[TrainedConcept]:
    """Two concepts whose weights differ much: three steps have barely moved them."""
    method = MixOfShow(**SMALL)
    return [
        replace(one, deltas={target: Dense(random(*delta.shape, seed=n)) for target, delta in one.deltas.items()})
        for n, one in enumerate(learn(base, method, name) for name in ("rex", "kiki"))
    ]


def test_one_concept_keeps_its_weights_on_its_features_and_the_bases_elsewhere() -> None:
    change, features = random(D1, D2, seed=0), random(6, D2, seed=1)
    fused = fuse([change], [features], ridge=1e-6)
    torch.testing.assert_close(features @ fused.T, features @ change.T, atol=1e-4, rtol=0)
    elsewhere = torch.linalg.svd(features).Vh[6:]  # directions that no feature has
    assert (elsewhere @ fused.T).abs().max() < 1e-5
    assert (elsewhere @ change.T).abs().max() > 1


def test_concepts_with_features_of_their_own_are_all_satisfied() -> None:
    changes, features = [random(D1, D2, seed=n) for n in (0, 1)], [random(6, D2, seed=n) for n in (2, 3)]
    fused = fuse(changes, features, ridge=1e-6)
    for change, rows in zip(changes, features, strict=True):
        torch.testing.assert_close(rows @ fused.T, rows @ change.T, atol=1e-3, rtol=0)


def test_fusion_minimises_the_objective_in_any_order() -> None:
    """More features than directions: no weights satisfy all concepts."""
    changes, features = [random(D1, D2, seed=n) for n in range(3)], [random(9, D2, seed=n) for n in range(3, 6)]
    ridge = 1e-2
    eps = ridge * torch.cat(features).double().square().sum() / D2
    fused = fuse(changes, features, ridge).double().requires_grad_(True)
    loss = eps * fused.square().sum()
    for change, rows in zip(changes, features, strict=True):
        loss = loss + (rows.double() @ (change - fused).T).square().sum()
    (gradient,) = torch.autograd.grad(loss, fused)
    assert gradient.abs().max() < 1e-4 * loss.item()
    turned = fuse(changes[::-1], features[::-1], ridge)
    torch.testing.assert_close(turned, fused.detach().float(), atol=1e-6, rtol=0)


def test_a_fused_model_hears_each_concept_as_its_own_model_does(base: Base, two: list[TrainedConcept]) -> None:
    method = MixOfShow(ridge=1e-9)
    errors = {name: 0.0 for name in ("rex", "kiki")}
    with Composed(base, method, two):
        fused = method.compose(base, two)
        for one in two:
            layers = own_features(base, f"<{one.name}>")
            assert len(layers) == len(base.cross_attention_layers()) and not torch.allclose(layers[0], layers[1])
            for target, delta in fused.items():
                (index,) = [
                    n for n, layer in enumerate(base.cross_attention_layers()) if target.startswith(f"{layer}.")
                ]
                wanted = layers[index] @ one.deltas[target].matrix().double().T
                error = (layers[index] @ delta.matrix().double().T - wanted).norm() / wanted.norm()
                errors[one.name] = max(errors[one.name], error.item())
    assert max(errors.values()) < 0.05


def test_weight_fusion_is_the_mean(base: Base, two: list[TrainedConcept]) -> None:
    for target, delta in MixOfShow(fusion="weight").compose(base, two).items():
        mean = (two[0].deltas[target].matrix() + two[1].deltas[target].matrix()) / 2
        torch.testing.assert_close(delta.matrix(), mean)
