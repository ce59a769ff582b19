"""LoRAs that are learned apart from one another: `single`, `lora-merge` and `lora-compose`."""

from typing import Any

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.methods import Method, TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.methods.lora_compose import LoraCompose
from mnemon.methods.lora_merge import LoraMerge
from mnemon.methods.single import Single
from mnemon.models import Base
from mnemon.sampling import Composed, SamplingSettings, sample
from tests.contract.table import assert_same_learned, images, learn
from tests.tiny import tiny_sd_base

SMALL = {
    "rank": 2,
    "learning_rate": 0.3,
    "steps": 3,
    "batch_size": 2,
}  # fast, so that concepts differ by more than rounding
REX, KIKI, BOTH, NONE = "a <rex> dog", "a <kiki> dog", "a <rex> dog and a <kiki> dog", "a red mug"


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def two(base: Base) -> list[TrainedConcept]:
    rex = learn(base, Lora(**SMALL), "rex")
    return [rex, learn(base, Single(**SMALL), "kiki", [rex])]


def bare(base: Base) -> torch.Tensor:
    return sample(base, [NONE], [0], SamplingSettings(2.0, 2))


@pytest.mark.parametrize("kind", [Single, LoraMerge, LoraCompose])
def test_every_concept_is_learned_as_the_first_of_lora(base: Base, two: list[TrainedConcept], kind: type[Lora]) -> None:
    assert_same_learned(learn(base, Lora(**SMALL), "kiki"), learn(base, kind(**SMALL), "kiki", two[:1]))


def test_single_samples_each_concept_as_if_it_were_the_only_one(base: Base, two: list[TrainedConcept]) -> None:
    method = Single(**SMALL)
    alone, both = (images(base, Lora(**SMALL), learned, [KIKI]) for learned in (two[1:], two))
    torch.testing.assert_close(images(base, method, two, [KIKI]), alone, atol=1e-5, rtol=0)
    assert not torch.allclose(alone, both, atol=1e-3)
    assert torch.equal(images(base, method, two, [NONE]), bare(base))


def test_single_refuses_a_prompt_with_two_concepts(base: Base, two: list[TrainedConcept]) -> None:
    with pytest.raises(MnemonError, match="names <rex> and <kiki>"):
        images(base, Single(**SMALL), two, [REX, BOTH])
    assert not base.tokens


def test_merged_weights_are_the_mean_of_the_concepts_weights(base: Base, two: list[TrainedConcept]) -> None:
    merged = LoraMerge(**SMALL).compose(base, two)
    for target, delta in merged.items():
        rex, kiki = (one.deltas[target].matrix() for one in two)
        torch.testing.assert_close(delta.matrix(), (rex + kiki) / 2)


def test_composing_averages_the_predictions_of_the_concepts_the_prompt_names(
    base: Base, two: list[TrainedConcept]
) -> None:
    """After one step without guidance, latents are linear in the prediction; so is a decoder that does nothing."""
    apart = [latents(base, Apart(index, **SMALL), two, BOTH) for index in range(2)]
    assert not torch.allclose(*apart, atol=1e-3)
    torch.testing.assert_close(latents(base, LoraCompose(**SMALL), two, BOTH), sum(apart) / 2, atol=1e-5, rtol=0)


class Apart(LoraCompose):
    """Draws with one of the concepts, whatever the prompt names."""

    def __init__(self, index: int, **settings: Any) -> None:
        super().__init__(**settings)
        object.__setattr__(self, "index", index)

    def branches(self, base, learned, prompt):
        return [dict(learned[self.index].deltas)]


def latents(base: Base, method: Method, learned: list[TrainedConcept], prompt: str) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch, Composed(base, method, learned) as composed:
        patch.setattr(type(base), "decode_latents", lambda self, latents: latents)
        return composed.sample([prompt], [0], SamplingSettings(1.0, 1))


def test_over_the_prompted_concepts_or_over_all(base: Base, two: list[TrainedConcept]) -> None:
    prompted, everywhere = LoraCompose(**SMALL), LoraCompose(**SMALL, over="all")
    counts = [[len(way) for way in method.branches(base, two, NONE)] for method in (prompted, everywhere)]
    assert counts == [[0], [len(base.target_modules())] * 2]
    assert [len(method.branches(base, two, REX)) for method in (prompted, everywhere)] == [1, 2]
    assert everywhere.branches(base, [], NONE) == [{}]
    assert torch.equal(images(base, prompted, two, [NONE]), bare(base))
    with pytest.raises(MnemonError, match="no one change of the weights"):
        prompted.compose(base, two, BOTH)
