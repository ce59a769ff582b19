"""Closed forms of the price on what earlier prompts read, and what it keeps."""

import pytest
import torch
from torch import Tensor

from mnemon.data.captions import captions_about
from mnemon.evaluation.prompts import concept_prompts, prompt_set
from mnemon.methods import Start, TrainedConcept, text_grams
from mnemon.methods.lora import Lora
from mnemon.methods.null_space import NullSpace, NullSpaceLearner
from mnemon.models import Base
from mnemon.world.backgrounds import BACKGROUNDS
from tests.contract.table import learn, learn_all
from tests.tiny import tiny_sd_base
from tests.tiny_transformers import tiny_base

SMALL = {"rank": 2, "steps": 4, "batch_size": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(base: Base, method: NullSpace, earlier: list[TrainedConcept]) -> NullSpaceLearner:
    """A learner that has gathered what it guards, with factors that are not zero any more."""
    learner = method.begin(Start("kiki", "dog", base, earlier, numbers()))
    assert isinstance(learner, NullSpaceLearner)
    learner.on_train_start(lambda generator: torch.zeros(()), None, numbers())
    with torch.no_grad():
        for delta in learner.deltas().values():
            delta.up.normal_(0, 0.1, generator=numbers(1))
    return learner


def gram(factor: Tensor) -> Tensor:
    return factor @ factor.T


def test_the_price_is_what_changes_of_the_guarded_prompts_relative_to_what_there_is(base: Base) -> None:
    rex = learn(base, NullSpace(**SMALL), "rex")
    learner = begin(base, NullSpace(**SMALL, forget_weight=3.0, concept_weight=2.0), [rex])
    ordinary = gram(text_grams.general_factors(base, numbers())["text"])
    guarded = ordinary + 2.0 * gram(rex.extra["features/text"])
    shares = []
    for target, delta in learner.deltas().items():
        change, weight = delta.matrix(), base.target_modules()[target].weight
        shares.append(torch.trace(change @ guarded @ change.T) / torch.trace(weight @ ordinary @ weight.T))
    torch.testing.assert_close(learner.regularization_loss(), 3.0 * torch.stack(shares).mean(), rtol=1e-3, atol=0)


def test_a_concept_stores_what_its_own_prompts_read(base: Base) -> None:
    rex = learn(base, NullSpace(**SMALL), "rex")
    with base.using_tokens({"rex": rex.tokens}):
        features = torch.cat(base.token_features(captions_about(base.single_token_words, "<rex> dog", 24, False)))
    wanted = features.T @ features / len(features)
    torch.testing.assert_close(
        gram(rex.extra["features/text"]), wanted, rtol=0, atol=1e-3 * float(wanted.diagonal().max())
    )
    assert rex.extra["features/text"].shape[1] < 32


def test_the_prompts_it_stores_are_none_of_those_that_score_it() -> None:
    everything = list[str]
    for name, kind, templates in (("<rex> dog", "thing", "<rex> dog"), ("<ink>", "style", " in <ink> style")):
        prompts = captions_about(everything, name, 24, kind == "style")
        scored = concept_prompts(name, None, prompt_set("world"), 16, kind=kind).prompts
        assert len(prompts) == 24 and all(templates in prompt for prompt in prompts) and not set(prompts) & set(scored)
        assert any(place in prompt for place in BACKGROUNDS for prompt in prompts)


@pytest.mark.parametrize(("constraint", "moved"), [("soft", 0.1), ("hard", 0.05)])
def test_what_earlier_prompts_produce_hardly_changes(base: Base, constraint: str, moved: float) -> None:
    """Under a pull of every entry to 0.1 the guarded features move far less than without the constraint."""
    rex = learn(base, NullSpace(**SMALL), "rex")
    features = rex.extra["features/text"]
    outputs = {}
    for kind in ("none", constraint):
        learner = begin(base, NullSpace(rank=2, forget_weight=1e4, constraint=kind), [rex])
        optimizer = torch.optim.Adam(learner.parameter_groups())
        for _ in range(100):
            pull = sum((delta.matrix() - 0.1).square().sum() for delta in learner.deltas().values())
            (pull + learner.regularization_loss()).backward()
            optimizer.step()
            optimizer.zero_grad()
            learner.after_step(1.0)
        outputs[kind] = sum((delta.matrix() @ features).square().sum() for delta in learner.deltas().values())
    assert outputs[constraint] < moved * outputs["none"]


def test_without_the_constraint_it_is_sequential_lora(base: Base) -> None:
    shared = {**SMALL, "num_vectors": 3, "token_init": "class_noun", "learning_rate": 2e-3}
    for left, right in zip(
        learn_all(base, NullSpace(**shared, constraint="none"), ["rex", "kiki"]),
        learn_all(base, Lora(**shared), ["rex", "kiki"]),
        strict=True,
    ):
        for target, delta in left.deltas.items():
            assert torch.equal(delta.matrix(), right.deltas[target].matrix())


def test_where_text_passes_through_the_blocks_every_layer_has_features_of_its_own() -> None:
    flux = tiny_base("flux")
    rex = learn(flux, NullSpace(**SMALL), "rex")
    layers = {f"features/{layer}" for layer in flux.cross_attention_layers()}
    assert rex.extra.keys() == layers
    kiki = learn(flux, NullSpace(**SMALL, forget_weight=1e3), "kiki", [rex])
    assert all(delta.matrix().isfinite().all() for delta in kiki.deltas.values())


def test_many_concepts_take_no_more_columns_than_the_features_are_wide() -> None:
    parts = [{"text": torch.randn(8, 5, generator=numbers(seed))} for seed in range(4)]
    together = text_grams.joined(parts)["text"]
    assert together.shape == (8, 8)
    torch.testing.assert_close(gram(together), sum(gram(part["text"]) for part in parts))
