"""Strengths of concepts in prompts, for methods that merge and for methods that compose for each prompt."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mnemon.adapters import Dense, LowRank, MaskedLowRank, Sparse
from mnemon.errors import MnemonError
from mnemon.methods.base import Method, TrainedConcept
from mnemon.methods.custom_diffusion_merge import CustomDiffusionMerge
from mnemon.methods.lora import Lora
from mnemon.methods.lora_compose import LoraCompose
from mnemon.methods.lora_merge import LoraMerge
from mnemon.models import Base
from mnemon.models.prompt_syntax import parse_prompt
from mnemon.sampling import Composed, SamplingSettings
from mnemon.sampling.regions import Region
from tests.tiny import tiny_sd_base

HOW = SamplingSettings(guidance_scale=3.0, num_inference_steps=2)
KINDS = [Lora(), LoraMerge(), LoraCompose()]
BOTH = "<rex{}> and <tom{}> on the beach"


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def learned(base: Base) -> list[TrainedConcept]:
    return [concept(base, "rex", 1), concept(base, "tom", 2)]


def concept(base: Base, name: str, seed: int) -> TrainedConcept:
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        target: LowRank(
            0.5 * torch.randn(layer.out_features, 2, generator=generator),
            torch.randn(2, layer.in_features, generator=generator),
            0.7,
        )
        for target, layer in base.target_modules().items()
    }
    widths = {encoder: width for encoder, (width, _, _) in base.embedding_statistics().items()}
    tokens = {encoder: torch.randn(1, width, generator=generator) for encoder, width in widths.items()}
    return TrainedConcept(name, None, deltas, tokens)


def drawn(base: Base, method: Method, learned: list[TrainedConcept], *prompts: str, **more: Any) -> Tensor:
    with Composed(base, method, learned) as composed:
        parsed = [parse_prompt(prompt, ["rex", "tom"]) for prompt in prompts]
        settings = replace(HOW, negative_prompt=parse_prompt(more.pop("negative", ""), ["rex", "tom"]))
        return composed.sample(parsed, range(len(prompts)), settings, **more)


def scaled(learned: list[TrainedConcept], *factors: float) -> list[TrainedConcept]:
    return [
        replace(one, deltas={target: Dense(factor * delta.matrix()) for target, delta in one.deltas.items()})
        for one, factor in zip(learned, factors, strict=True)
    ]


@pytest.mark.parametrize("method", KINDS, ids=lambda method: method.name)
@pytest.mark.parametrize("strengths", [(0.5, 1), (0, 1), (-0.7, 1), (0.5, 1.8)])
def test_a_strength_scales_the_change_and_leaves_the_token(
    base: Base, learned: list[TrainedConcept], method: Method, strengths: tuple[float, float]
) -> None:
    asked = drawn(base, method, learned, BOTH.format(*(f":{one}" for one in strengths)))
    torch.testing.assert_close(asked, drawn(base, method, scaled(learned, *strengths), BOTH.format("", "")))
    assert (asked - drawn(base, method, learned, BOTH.format("", ""))).abs().max() > 1e-3


@pytest.mark.parametrize("method", KINDS, ids=lambda method: method.name)
def test_prompts_of_one_call_have_their_own_strengths(
    base: Base, learned: list[TrainedConcept], method: Method
) -> None:
    prompts = [BOTH.format("", ""), BOTH.format(":0.5", ""), BOTH.format("", ""), BOTH.format(":0.5", ":2")]
    before = {path: layer.weight.clone() for path, layer in base.target_modules().items()}
    together = drawn(base, method, learned, *prompts)
    for row, prompt in enumerate(prompts):
        alone = drawn(base, method, learned, *[prompt] * (row + 1))[row]
        torch.testing.assert_close(together[row], alone, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(layer.weight, before[path]) for path, layer in base.target_modules().items())


@pytest.mark.parametrize("method", KINDS, ids=lambda method: method.name)
def test_without_strengths_the_image_is_bit_equal(base: Base, learned: list[TrainedConcept], method: Method) -> None:
    with Composed(base, method, learned) as composed:
        plain = composed.sample([BOTH.format("", "")], [0], HOW)
        composed.sample([parse_prompt(BOTH.format(":0.5", ""), ["rex", "tom"])], [0], HOW)
        assert torch.equal(composed.sample([parse_prompt(BOTH.format(":1", ""), ["rex", "tom"])], [0], HOW), plain)


def test_steps_are_counted_over_all_strengths(base: Base, learned: list[TrainedConcept]) -> None:
    seen: list[tuple[int, int]] = []
    prompts = [BOTH.format("", ""), BOTH.format(":0.5", ""), BOTH.format("", "")]
    drawn(base, Lora(), learned, *prompts, on_step=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def regions(*prompts: str) -> list[list[Region]]:
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    return [[Region(parse_prompt(text, ["rex", "tom"]), box) for text, box in zip(prompts, boxes, strict=True)]]


@pytest.mark.parametrize("method", [Lora(), LoraCompose()], ids=lambda method: method.name)
def test_a_region_has_its_strength(base: Base, learned: list[TrainedConcept], method: Method) -> None:
    asked = drawn(base, method, learned, "on the beach", regions=regions("<rex:0.5>", "<tom>"))
    expected = drawn(base, method, scaled(learned, 0.5, 1), "on the beach", regions=regions("<rex>", "<tom>"))
    torch.testing.assert_close(asked, expected)
    two = {"regions": regions("<rex:0.5>", "a <rex:0.8>")}
    if method.per_prompt:
        drawn(base, method, learned, "on the beach", **two)
    else:
        with pytest.raises(MnemonError, match="<rex> at the strengths 0.5 and 0.8"):
            drawn(base, method, learned, "on the beach", **two)


@pytest.mark.parametrize("two", [("<rex:1>", "<rex:0.5>"), ("<rex:0.5>", "<rex:1.0>"), ("<rex:0>", "<rex:1>")])
def test_a_strength_of_1_is_a_strength_too(base: Base, learned: list[TrainedConcept], two: tuple[str, str]) -> None:
    with pytest.raises(MnemonError, match=r"<rex> at the strengths .* give it one strength"):
        drawn(base, Lora(), learned, "a beach", regions=regions(*two))
    alone = drawn(base, Lora(), learned, "<rex:1> on the beach")
    torch.testing.assert_close(alone, drawn(base, Lora(), learned, "<rex> on the beach"), rtol=0, atol=0)


def test_a_negative_prompt_has_strengths_where_concepts_are_merged(base: Base, learned: list[TrainedConcept]) -> None:
    asked = drawn(base, Lora(), learned, "a <rex> dog", negative="<tom:0.5>")
    expected = drawn(base, Lora(), scaled(learned, 1, 0.5), "a <rex> dog", negative="<tom>")
    torch.testing.assert_close(asked, expected)
    with pytest.raises(MnemonError, match="give <tom> its strength in the prompt"):
        drawn(base, LoraCompose(), learned, "a <rex> dog", negative="<tom:0.5>")


def test_what_has_no_strength_says_so(base: Base, learned: list[TrainedConcept]) -> None:
    with pytest.raises(MnemonError, match=r"'custom-diffusion-merge' .* fused .* write <rex>, or \(<rex>:0.8\)"):
        drawn(base, CustomDiffusionMerge(), learned, BOTH.format(":0.5", ""))
    with pytest.raises(MnemonError, match=r"<rex> is a token and no change of the weights.*\(<rex>:0.5\)"):
        drawn(base, Lora(), [replace(learned[0], deltas={}), learned[1]], BOTH.format(":0.5", ""))
    assert not any(layer._forward_hooks for layer in base.target_modules().values())


@pytest.mark.parametrize(
    "delta",
    [
        LowRank(torch.randn(4, 2), torch.randn(2, 3), 0.5),
        MaskedLowRank(torch.randn(4, 2), torch.randn(2, 3), torch.rand(4, 3) > 0.5),
        Dense(torch.randn(4, 3)),
        Sparse.from_matrix(torch.randn(4, 3).relu()),
    ],
    ids=lambda delta: delta.kind,
)
def test_a_scaled_change_is_of_the_same_kind(delta: Any) -> None:
    made = delta.scaled(-0.5)
    assert type(made) is type(delta)
    torch.testing.assert_close(made.matrix(), -0.5 * delta.matrix())
