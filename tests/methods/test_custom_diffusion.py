"""Custom Diffusion's change of a weight must be what training the weight itself gives."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnemon.adapters import Dense, merge
from mnemon.methods import Start, TrainedConcept
from mnemon.methods.custom_diffusion import CustomDiffusion
from mnemon.methods.full_rank import RARE_WORDS, FullRankLearner, TextDense
from mnemon.models import Base
from tests.contract.table import learn
from tests.tiny import tiny_sd_base, tiny_sdxl_base
from tests.tiny_transformers import tiny_base

SMALL = {"steps": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def rex(base: Base) -> TrainedConcept:
    return learn(base, CustomDiffusion(**SMALL), "rex")


class WeightLearner(FullRankLearner):
    """Trains the weights of the base themselves, as the paper says it: nothing is attached."""

    layers: Mapping[str, nn.Linear]
    before: dict[str, Tensor]

    def deltas(self) -> Mapping[str, Dense]:
        return {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        weights, token = super().parameter_groups()
        return [{"params": [layer.weight for layer in self.layers.values()], "lr": weights["lr"]}, token]

    def before_step(self, generator: torch.Generator) -> None:
        if not hasattr(self, "before"):  # the earlier concepts are folded in by now
            self.before = {target: layer.weight.detach().clone() for target, layer in self.layers.items()}

    def after_step(self, progress: float) -> None:
        self.after = {target: layer.weight.detach().clone() for target, layer in self.layers.items()}


class WeightTraining(CustomDiffusion):
    def begin(self, start: Start) -> WeightLearner:
        learner = WeightLearner(self, start)
        learner.layers = start.base.target_modules()
        for layer in learner.layers.values():
            layer.weight.requires_grad_(True)
            layer.register_forward_hook(lambda _, inputs, out: torch.cat([out[:, :1].detach(), out[:, 1:]], dim=1))
        held.append(learner)
        return learner


held: list[WeightLearner] = []


def test_the_change_is_what_training_the_weight_itself_gives(base: Base, rex: TrainedConcept) -> None:
    kiki = learn(base, CustomDiffusion(**SMALL), "kiki", [rex])
    other = learn(tiny_sd_base(), WeightTraining(**SMALL), "kiki", [rex])
    (learner,) = held
    for target, delta in kiki.deltas.items():
        change = learner.after[target] - learner.before[target]
        assert delta.matrix().abs().max() > 1e-4
        torch.testing.assert_close(delta.matrix(), change, atol=1e-6, rtol=0)
    torch.testing.assert_close(kiki.tokens, other.tokens, atol=1e-5, rtol=0)


def test_a_change_is_the_weight_after_minus_the_weight_before(base: Base, rex: TrainedConcept) -> None:
    method = CustomDiffusion(**SMALL)
    kiki = learn(base, method, "kiki", [rex])
    with merge(base.target_modules(), method.compose(base, [rex])):
        before = {target: layer.weight.clone() for target, layer in base.target_modules().items()}
    with merge(base.target_modules(), method.compose(base, [rex, kiki])):
        for target, layer in base.target_modules().items():
            assert type(kiki.deltas[target]) is Dense
            torch.testing.assert_close(kiki.deltas[target].matrix(), layer.weight - before[target], atol=1e-7, rtol=0)


def test_bos_gives_no_gradient_but_is_changed_all_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    values = nn.Parameter(torch.randn(5, 7, generator=generator))
    inputs = torch.randn(2, 4, 7, generator=generator)
    change = TextDense(values)(inputs)
    torch.testing.assert_close(change, inputs @ values.T)
    change.sum().backward()
    torch.testing.assert_close(values.grad, inputs[:, 1:].sum((0, 1)).expand(5, 7))


def test_without_bos_the_first_token_gives_a_gradient() -> None:
    """FLUX reads T5's features alone, whose first is of the prompt's first word."""
    for family, kind in (("flux", Dense), ("sd3", TextDense)):
        learner = CustomDiffusion().begin(Start("mug", None, tiny_base(family), [], torch.Generator().manual_seed(0)))
        assert all(type(delta) is kind for delta in learner.deltas().values())


def test_tokens_start_at_rare_words_each_once_and_then_at_random(base: Base, rex: TrainedConcept) -> None:
    method, numbers = CustomDiffusion(**SMALL), torch.Generator().manual_seed(0)
    assert rex.facts == {"token_start": RARE_WORDS[0]}
    second = method.begin(Start("kiki", "dog", base, [rex], numbers))
    assert torch.equal(second.tokens()["text_encoder"][0].detach(), base.word_embeddings(RARE_WORDS[1])["text_encoder"])
    earlier = [TrainedConcept(word, None, {}, {}, {"token_start": word}) for word in RARE_WORDS]
    assert method.begin(Start("mug", None, base, earlier[1:], numbers)).word == RARE_WORDS[0]  # free after a removal
    starts = [method.begin(Start("mug", None, base, earlier, numbers)) for _ in range(2)]
    assert starts[0].word is None
    assert not torch.allclose(*(start.tokens()["text_encoder"] for start in starts))


def test_a_concept_costs_every_entry_and_one_vector_an_encoder() -> None:
    base = tiny_sdxl_base()
    learned = learn(base, CustomDiffusion(**SMALL), "rex", steps=1)
    entries = sum(layer.weight.numel() for layer in base.target_modules().values())
    assert learned.stored_bytes == 4 * entries + 4 * (32 + 16)


def test_the_class_noun_follows_the_token_unless_switched_off() -> None:
    assert CustomDiffusion().prompt_name("rex", "dog") == "<rex> dog"
    assert CustomDiffusion(use_class_noun=False).prompt_name("rex", "dog") == "<rex>"
