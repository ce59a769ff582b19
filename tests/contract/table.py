"""The table that every method passes: small settings for each, and what the tests do with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemon.adapters import Delta
from mnemon.methods import METHODS, Learned, Method, method_from
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.sampling.drawn import calibration, rehearsed
from mnemon.training import Examples, Lesson, TrainingSettings, train, train_together

SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "steps": 3, "batch": 2},
    "stamina": {"rank": 2, "mask_rank": 2, "token_hidden": 8, "b0": 0.1, "steps": 3, "batch": 2},
    "c-lora": {"rank": 2, "steps": 3, "batch": 2},
    "textual-inversion": {"steps": 3, "batch": 2},
    "custom-diffusion": {"steps": 3, "batch": 2},
    "cns": {"steps": 3, "batch": 2},
    "custom-diffusion-merge": {"captions": 20, "steps": 3, "batch": 2},
    "lora-merge": {"rank": 2, "steps": 3, "batch": 2},
    "lora-compose": {"rank": 2, "steps": 3, "batch": 2},
    "ewc": {"draws": 2, "steps": 3, "batch": 2},
    "lwf": {"rank": 2, "steps": 3, "batch": 2},
    "replay": {"rank": 2, "rehearsal": 1, "steps": 3, "batch": 2},
    "single": {"rank": 2, "steps": 3, "batch": 2},
    "joint": {"rank": 2, "steps": 3, "batch": 2},
    "mix-of-show": {"rank": 2, "steps": 3, "batch": 2},
    "orthogonal-adaptation": {"rank": 2, "steps": 3, "batch": 2},
    "cidm": {"rank": 2, "steps": 3, "batch": 2},
    "fl2t": {"rank": 2, "steps": 3, "batch": 2},
}
"""b0 near zero: so early, some gates are shut and some open."""
TOKEN_ONLY = {"textual-inversion"}
"""Methods that change no weight: a prompt without the token draws what the bare base draws."""
COMPARES = {"cidm", "fl2t"}
"""Methods whose steps compare the new concept with each earlier one, so that a step's cost grows with their number."""

VARY = {"cns"}
"""Methods that train as many entries as the concept asks for: sizes agree to a quarter, not exactly."""


def small(name: str) -> Method:
    return method_from(name, SMALL[name])


def lesson(base: Base, method: Method, name: str, noun: str | None = "dog") -> Lesson:
    """Random latents that depend on nothing but the name."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    latents = torch.randn(3, *base.latent_shape(), generator=generator)
    return Lesson(name, noun, Examples(latents, [f"a photo of {method.prompt_name(name, noun)}"] * 3))


def learn(
    base: Base,
    method: Method,
    name: str,
    earlier: Sequence[Learned] = (),
    folder: Path | None = None,
    on_step: Any = None,
    noun: str | None = "dog",
    **settings: Any,
) -> Learned:
    """Learn one more concept. A method that learns all its concepts at once learns this one alone."""
    known = [] if method.at_once else earlier
    one = lesson(base, method, name, noun)
    return train(
        base,
        method,
        name,
        one.noun,
        one.examples.latents,
        one.examples.prompts,
        known,
        TrainingSettings(**settings),
        folder,
        on_step,
        prior=rehearsed(base, method, known, seed=0),
        calibration=calibration(base, method),
    )


def learn_all(base: Base, method: Method, names: Sequence[str], **settings: Any) -> list[Learned]:
    """Learn several concepts as the method does: one after another, or all at once."""
    if method.at_once:
        lessons = [lesson(base, method, name) for name in names]
        return train_together(base, method, lessons, settings=TrainingSettings(**settings))
    learned: list[Learned] = []
    for name in names:
        learned.append(learn(base, method, name, learned, **settings))
    return learned


def pictures(base: Base, method: Method, learned: Sequence[Learned], prompts: Sequence[str], batch: int = 16) -> Tensor:
    """What the base draws with the concepts in it, in two steps."""
    with Composed(base, method, learned) as composed:
        return composed.draw(prompts, seeds=range(len(prompts)), guidance=2.0, steps=2, batch=batch)


@torch.no_grad()
def predict(base: Base, prompts: Sequence[str]) -> Tensor:
    """What the denoiser says to one fixed noise for each prompt."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(base.latent_shape(), generator=generator).expand(len(prompts), -1, -1, -1)
    return base.predict(noisy, torch.full((len(prompts),), 300), base.encode_prompts(prompts))


def alike(method: Method, sizes: Sequence[int]) -> bool:
    """Whether what the concepts take is the same for all, as far as the method lets it be."""
    return min(sizes) >= (0.75 if method.name in VARY else 1) * max(sizes)


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
    for mine, theirs in ((left.tokens, right.tokens), (left.extra, right.extra)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


assert SMALL.keys() == METHODS.keys(), "give every method small settings here"
