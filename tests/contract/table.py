"""The table that every method passes: small settings for each, and what the tests do with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemon.adapters import Delta
from mnemon.methods import METHODS, Learned, Method, method_from
from mnemon.models import Base
from mnemon.training import TrainingSettings, train

SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "steps": 3, "batch": 2},
    "stamina": {"rank": 2, "mask_rank": 2, "token_hidden": 8, "b0": 0.1, "steps": 3, "batch": 2},
    "c-lora": {"rank": 2, "steps": 3, "batch": 2},
    "textual-inversion": {"steps": 3, "batch": 2},
    "custom-diffusion": {"steps": 3, "batch": 2},
}
"""b0 near zero: so early, some gates are shut and some open."""
TOKEN_ONLY = {"textual-inversion"}
"""Methods that change no weight: a prompt without the token draws what the bare base draws."""


def small(name: str) -> Method:
    return method_from(name, SMALL[name])


def learn(
    base: Base,
    method: Method,
    name: str,
    earlier: Sequence[Learned] = (),
    folder: Path | None = None,
    on_step: Any = None,
    **settings: Any,
) -> Learned:
    """Learn random latents that depend on nothing but the name."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    latents = torch.randn(3, *base.latent_shape(), generator=generator)
    prompts = [f"a photo of {method.prompt_name(name, 'dog')}"] * 3
    return train(base, method, name, "dog", latents, prompts, earlier, TrainingSettings(**settings), folder, on_step)


@torch.no_grad()
def predict(base: Base, prompts: Sequence[str]) -> Tensor:
    """What the denoiser says to one fixed noise for each prompt."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(base.latent_shape(), generator=generator).expand(len(prompts), -1, -1, -1)
    return base.predict(noisy, torch.full((len(prompts),), 300), base.encode_prompts(prompts))


def weights(base: Base) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}


def hooks(base: Base) -> int:
    return sum(len(module._forward_hooks) for module in base.denoiser.modules())


def assert_same_deltas(left: dict[str, Delta], right: dict[str, Delta]) -> None:
    assert left.keys() == right.keys()
    for site, delta in left.items():
        assert torch.equal(delta.matrix(), right[site].matrix()), site


def assert_same_learned(left: Learned, right: Learned) -> None:
    assert (left.name, left.noun, dict(left.facts)) == (right.name, right.noun, dict(right.facts))
    assert_same_deltas(dict(left.deltas), dict(right.deltas))
    assert left.tokens.keys() == right.tokens.keys()
    for encoder, vectors in left.tokens.items():
        assert torch.equal(vectors, right.tokens[encoder])


assert SMALL.keys() == METHODS.keys(), "give every method small settings here"
