"""Regions drawn apart first: what is put where, and what is drawn over."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from mnemon.models import Base
from mnemon.sampling import SamplingSettings, sample
from mnemon.sampling.per_region import collage, sample_per_region
from mnemon.sampling.regions import Region
from tests.tiny import tiny_sd_base
from tests.tiny_transformers import tiny_base as tiny_transformer

LEFT, RIGHT, CORNER = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.5, 0.5, 1.0, 1.0)
SETTINGS = SamplingSettings(guidance_scale=2, num_inference_steps=4)


def flat(*values: float) -> torch.Tensor:
    return torch.stack([torch.full((3, 8, 8), value) for value in values])


def test_canvases_lie_in_their_regions() -> None:
    left, right = Region("a", LEFT), Region("b", RIGHT)
    both = collage(flat(0.2, 0.8), [left, right])
    assert both[:, :, :4].allclose(torch.tensor(0.2)) and both[:, :, 4:].allclose(torch.tensor(0.8))
    within = collage(flat(0.5, 0.8), [Region("b", CORNER)])
    assert within[:, 4:, 4:].allclose(torch.tensor(0.8)) and within[:, :4].allclose(torch.tensor(0.5))
    thing = torch.zeros(1, 3, 8, 8)
    thing[..., 2:6, 2:6] = 1
    small = collage(thing, [Region("a", LEFT)], 0.0)
    assert small[:, 3:5, 1:3].gt(0.8).all() and small[:, :2].lt(0.2).all() and small[:, :, 4:].eq(0).all(), (
        "whole, made smaller, in the middle"
    )


@pytest.mark.parametrize(
    "new_base", [tiny_sd_base, partial(tiny_transformer, "flux2-klein")], ids=["sd", "flux2-klein"]
)
def test_only_the_last_steps_are_drawn_over(new_base: Callable[[], Base]) -> None:
    base = new_base()
    start = torch.rand(2, 3, base.resolution, base.resolution, generator=torch.Generator().manual_seed(0))
    drawn = partial(sample, base, ["a dog", "a cat"], [1, 2], init_images=start)
    kept = base.decode_latents(base.encode_images(start))
    torch.testing.assert_close(drawn(SETTINGS, strength=0.0), kept)
    little, much = ((drawn(SETTINGS, strength=share) - kept).abs().mean() for share in (0.25, 1.0))
    assert 0 < little < much
    one = sample(base, ["a cat"], [2], SETTINGS, init_images=start[1:], strength=0.5)
    torch.testing.assert_close(drawn(replace(SETTINGS, batch_size=1), strength=0.5)[1:], one, atol=1e-5, rtol=0)


def test_a_region_of_its_own_seed_and_prompt() -> None:
    base, told = tiny_sd_base(), []

    def spied(prompts: list[str], seeds: list[int], *settings: Any, **options: Any) -> torch.Tensor:
        told.append((prompts, seeds))
        return sample(base, prompts, seeds, *settings, **options)

    regions = [[Region("a dog", LEFT), Region("a cat", RIGHT)], [Region("a cat", LEFT), Region("a dog", RIGHT)]]
    images = sample_per_region(spied, ["in snow"] * 2, [1, 2], SETTINGS, regions=regions)
    assert images.shape == (2, 3, base.resolution, base.resolution)
    (canvases, seeds), (whole, own) = told
    assert canvases == ["a dog", "a cat", "a cat", "a dog"] and len(set(seeds)) == 4
    assert whole == ["in snow"] * 2 and own == [1, 2]
    sample_per_region(spied, ["in snow"], [1], SETTINGS, regions=[[Region("a dog", CORNER)]])
    assert told[2][0] == ["in snow", "a dog"], "what the regions leave has a canvas too"
