"""Elastic weight aggregation: what a prompt's weights are, what they depend on, and what they compose."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mnemon.adapters import LowRank
from mnemon.errors import MnemonError
from mnemon.methods import TrainedConcept
from mnemon.methods.aggregation import ENCODING, elastic_weights, encode_alone, similarities
from mnemon.methods.cidm import Cidm
from mnemon.models import Base
from tests.tiny import tiny_sd_base

NAMES = ["rex", "kiki", "mug"]
CODE = {"normalisation": "pow4_l1"}
SHARP = {"normalisation": "pow8_frobenius"}


def random_concept(base: Base, name: str) -> TrainedConcept:
    numbers = torch.Generator().manual_seed(sum(map(ord, name)))
    sample = lambda *shape: torch.randn(*shape, generator=numbers)  # noqa: E731
    deltas = {
        target: LowRank(sample(layer.out_features, 2), sample(2, 32)) for target, layer in base.target_modules().items()
    }
    tokens = {"text_encoder": sample(len(base.cross_attention_layers()), 2, 32)}
    return TrainedConcept(name, "dog", deltas, tokens, extra={ENCODING: encode_alone(base, name, tokens)})


@pytest.fixture(scope="module")
def base() -> Iterator[Base]:
    base = tiny_sd_base()
    base.set_tokens({one.name: one.tokens for one in (random_concept(base, name) for name in NAMES)})
    yield base
    base.set_tokens({})


@pytest.fixture(scope="module")
def learned(base: Base) -> list[TrainedConcept]:
    return [random_concept(base, name) for name in NAMES]


def vectors(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[None]  # one layer


def test_weights_in_closed_form() -> None:
    words, concepts = vectors([1.0, 0.0], [0.0, 3.0]), [vectors([2.0, 0.0], [0.0, 0.0]), vectors([0.0, 1.0])]
    printed = similarities(words, concepts, "square_frobenius")
    torch.testing.assert_close(printed, torch.tensor([[1.0, 3.0]]))  # inner products with the mean vectors
    torch.testing.assert_close(
        elastic_weights(printed, "square_frobenius"), torch.tensor([[1.0, 9.0]]) / (1 + 81) ** 0.5
    )
    coded = similarities(words, concepts, "pow4_l1")
    torch.testing.assert_close(coded, torch.tensor([[0.5, 1.0]]))  # mean over vectors of the largest cosine
    torch.testing.assert_close(elastic_weights(coded, "pow4_l1"), torch.tensor([[1 / 17, 16 / 17]]))
    sharp = torch.tensor([[1.0, 256.0]]) / (1 + 256**2) ** 0.5
    torch.testing.assert_close(elastic_weights(coded, "pow8_frobenius"), sharp)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [{}, CODE, SHARP])
def test_the_weights_name_the_prompted_concept(base: Base, learned: list[TrainedConcept], name: str, settings) -> None:
    weights = Cidm(**settings).weights(base, learned, f"a photo of <{name}> on the beach")
    assert weights.shape == (len(base.cross_attention_layers()), 3)
    assert (weights.argmax(1) == NAMES.index(name)).all()
    size = weights.sum(1) if settings == CODE else weights.norm(dim=1)
    torch.testing.assert_close(size, torch.ones(len(base.cross_attention_layers())))


@pytest.mark.parametrize("settings", [{}, CODE, SHARP])
def test_a_concept_that_is_the_only_one_weighs_one(base: Base, learned: list[TrainedConcept], settings) -> None:
    weights = Cidm(**settings).weights(base, learned[:1], "a photo of <rex> on the beach")
    torch.testing.assert_close(weights, torch.ones(len(base.cross_attention_layers()), 1))


def test_the_order_of_concepts_counts_only_when_they_are_encoded_jointly(
    base: Base, learned: list[TrainedConcept]
) -> None:
    prompt = "a photo of <kiki>"
    for method in (Cidm(), Cidm(**CODE), Cidm(encoding="joint")):
        straight, turned = (method.weights(base, order, prompt) for order in (learned, learned[::-1]))
        same = torch.allclose(straight, turned.flip(1), atol=1e-6)
        assert same == (method.encoding == "per_concept")


def test_what_is_composed_is_the_weighted_sum_of_products_in_any_order(
    base: Base, learned: list[TrainedConcept]
) -> None:
    method, prompt = Cidm(scale=0.8, **CODE), "a photo of <kiki> and a dog"
    weights = method.weights(base, learned, prompt)
    composed, turned = (method.compose(base, order, prompt) for order in (learned, learned[::-1]))
    assert composed.keys() == base.target_modules().keys()
    for target, delta in composed.items():
        layer = base.cross_attention_layers().index(target.rpartition(".")[0])
        expected = sum(0.8 * weights[layer, i] * one.deltas[target].matrix() for i, one in enumerate(learned))
        torch.testing.assert_close(delta.matrix(), expected)
        torch.testing.assert_close(delta.matrix(), turned[target].matrix())


def test_concepts_that_the_prompt_does_not_name_can_be_left_out(base: Base, learned: list[TrainedConcept]) -> None:
    method, prompt = Cidm(over="prompted"), "a photo of <mug> and <kiki>"
    composed, alone = method.compose(base, learned, prompt), Cidm().compose(base, learned[1:], prompt)
    for target, delta in composed.items():
        torch.testing.assert_close(delta.matrix(), alone[target].matrix())
    assert method.compose(base, learned, "a photo of a dog") == {}


def test_a_denoising_step_costs_the_same_with_one_concept_and_with_fifty(
    base: Base, learned: list[TrainedConcept]
) -> None:
    many = [replace(learned[0], name=f"rex{index}") for index in range(49)] + learned[:1]
    one, fifty = (Cidm().compose(base, group, "<rex>") for group in (learned[:1], many))
    assert {target: (delta.kind, delta.shape, delta.stored_bytes) for target, delta in one.items()} == {
        target: (delta.kind, delta.shape, delta.stored_bytes) for target, delta in fifty.items()
    }


def test_no_concept_is_encoded_again_for_a_prompt(base: Base, learned: list[TrainedConcept], monkeypatch) -> None:
    asked: list[str] = []
    token_features = base.token_features
    monkeypatch.setattr(base, "token_features", lambda prompts: asked.extend(prompts) or token_features(prompts))
    Cidm().compose(base, learned, "a photo of <kiki>")
    assert asked == ["a photo of <kiki>"]


def test_too_many_concepts_for_one_prompt_are_refused(base: Base) -> None:
    many = [random_concept(base, f"c{index}") for index in range(12)]  # of two vectors; a prompt has 18 places
    base.set_tokens({one.name: one.tokens for one in many})
    with pytest.raises(MnemonError, match="12 concepts do not fit into one prompt: set encoding to per_concept"):
        Cidm(encoding="joint").weights(base, many, "<c1>")
    assert Cidm().weights(base, many, "<c1>").isfinite().all()
    base.set_tokens({name: random_concept(base, name).tokens for name in NAMES})
