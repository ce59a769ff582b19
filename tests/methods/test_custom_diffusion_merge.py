"""The closed form of Custom Diffusion's merge: its constraint, and that nothing nearer to the base satisfies it."""

import pytest
import torch
from torch import Tensor

from mnemon.methods import TrainedConcept
from mnemon.methods.custom_diffusion import CustomDiffusion
from mnemon.methods.custom_diffusion_merge import CustomDiffusionMerge, concept_words, merge
from mnemon.models import Base
from tests.contract.table import assert_same_learned, learn
from tests.tiny import tiny_sd_base

SMALL = {"captions": 40, "steps": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def two(base: Base) -> list[TrainedConcept]:
    rex = learn(base, CustomDiffusionMerge(**SMALL), "rex")
    return [rex, learn(base, CustomDiffusionMerge(**SMALL), "kiki", [rex])]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_papers_closed_form() -> None:
    texts, words, start, wanted = (random(*s, seed=i) for i, s in enumerate([(50, 12), (5, 12), (7, 12), (5, 7)]))
    gram = texts.T @ texts
    d = (gram.inverse() @ words.T).T
    theirs = start + (wanted.T - start @ words.T) @ (d @ words.T).inverse() @ d  # W_0 + (V^T - W_0 C^T)(d C^T)^-1 d
    ours = start + merge(words, wanted.T - start @ words.T, texts, ridge=1e-12)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours @ words.T, wanted.T, atol=1e-5, rtol=0)


def test_concepts_that_predict_what_the_base_predicts_change_nothing() -> None:
    texts, words = random(50, 12, seed=0), random(5, 12, seed=1)
    assert torch.equal(merge(words, torch.zeros(7, 5, dtype=torch.float64), texts, 1e-4), random(7, 12, seed=2) * 0)


def test_no_other_weight_with_the_constraint_changes_the_captions_less() -> None:
    texts, words, wanted = random(50, 12, seed=0), random(5, 12, seed=1), random(7, 5, seed=2)
    least = merge(words, wanted, texts, ridge=1e-12)
    away = torch.linalg.qr(words.T, mode="complete").Q[:, 5:]  # changes along these keep the constraint
    for seed in range(5):
        other = least + 0.01 * random(7, 7, seed=seed) @ away.T
        torch.testing.assert_close(other @ words.T, wanted)
        assert (other @ texts.T).norm() > (least @ texts.T).norm()


def test_repeated_words_count_once_and_too_many_have_the_least_squares_solution() -> None:
    texts, words, wanted = random(50, 12, seed=0), random(5, 12, seed=1), random(7, 5, seed=2)
    twice = merge(torch.cat([words, words]), torch.cat([wanted, wanted], dim=1), texts, 1e-4)
    torch.testing.assert_close(twice, merge(words, wanted, texts, 1e-4))
    many, asked = random(30, 12, seed=3), random(7, 30, seed=4)
    met = merge(many, asked, texts, 1e-4)
    torch.testing.assert_close(met, torch.linalg.lstsq(many, asked.T).solution.T)


def test_the_merged_model_maps_each_concepts_words_as_its_own_model_does(base: Base, two: list[TrainedConcept]) -> None:
    method = CustomDiffusionMerge(**SMALL)
    base.set_tokens(method.tokens(two))
    merged = method.compose(base, two)
    words = {one.name: concept_words(base, f"<{one.name}> dog").float() for one in two}
    base.set_tokens({})
    assert all(own.shape == (6, 32) for own in words.values())  # twice token, noun and end mark
    for one in two:
        for target, delta in one.deltas.items():
            wanted = words[one.name] @ delta.matrix().T
            assert wanted.abs().max() > 1e-4
            torch.testing.assert_close(words[one.name] @ merged[target].matrix().T, wanted, atol=1e-5, rtol=0)


def test_a_concept_is_learned_as_the_first_of_custom_diffusion(base: Base, two: list[TrainedConcept]) -> None:
    assert_same_learned(two[1], learn(base, CustomDiffusion(steps=3, batch_size=2), "kiki"))
