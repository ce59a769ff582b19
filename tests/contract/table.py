"""The contract that every method keeps: small settings, and what the tests do with a method."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, save_deltas
from mnemon.methods import METHODS, Method, TrainedConcept, method_from, method_settings
from mnemon.models import Base
from mnemon.sampling import Composed, SamplingSettings
from mnemon.training import ConceptTask, Examples, TrainingSettings, train
from mnemon.training.generated import calibration_images, replay_images

SMALL: dict[str, Any] = {
    "rank": 2,
    "steps": 2,
    "batch_size": 2,
    "mask_rank": 2,
    "token_hidden": 8,
    "captions": 20,
    "draws": 2,
    "num_replay_images": 1,
    "b0": 0.1,
}
"""Small values of the settings that a method may have. b0 near zero: so early, some gates are shut and some open."""
TOKEN_ONLY = {"textual-inversion"}
"""Methods that change no weight: a prompt without the token gives what the bare base gives."""
COMPARES = {"cidm", "fl2t"}
"""Methods whose steps compare the new concept with each earlier one, so that a step's cost grows with their number."""

VARY = {"cns", "null-space"}
"""Methods that store as much as the concept asks for: sizes agree to a quarter, not exactly."""

QUICK = SamplingSettings(guidance_scale=2.0, num_inference_steps=2, batch_size=16)


def small(name: str) -> Method:
    return method_from(name, {field.name: SMALL[field.name] for field in fields(METHODS[name]) if field.name in SMALL})


def task(base: Base, method: Method, name: str, class_noun: str | None = "dog") -> ConceptTask:
    """Random latents that depend on nothing but the name."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    latents = torch.randn(3, *base.latent_shape(), generator=generator).to(base.device)
    return ConceptTask(name, class_noun, Examples(latents, [f"a photo of {method.prompt_name(name, class_noun)}"] * 3))


def learn(
    base: Base,
    method: Method,
    name: str,
    earlier: Sequence[TrainedConcept] = (),
    folder: Path | None = None,
    on_step: Any = None,
    class_noun: str | None = "dog",
    **settings: Any,
) -> TrainedConcept:
    """Train one more concept. A method that trains all its concepts jointly trains this one alone."""
    earlier = [] if method.trains_jointly else earlier
    one = replace(
        task(base, method, name, class_noun),
        prior=replay_images(base, method, earlier, seed=0, sampling=QUICK),
        calibration=calibration_images(base, method, sampling=QUICK),
    )
    return train(base, method, [one], earlier, TrainingSettings(**settings), folder, on_step=on_step)[0]


def learn_all(base: Base, method: Method, names: Sequence[str], **settings: Any) -> list[TrainedConcept]:
    """Train several concepts as the method does: one after another, or jointly."""
    if method.trains_jointly:
        tasks = [task(base, method, name) for name in names]
        return train(base, method, tasks, settings=TrainingSettings(**settings))
    learned: list[TrainedConcept] = []
    for name in names:
        learned.append(learn(base, method, name, learned, **settings))
    return learned


@dataclass(frozen=True)
class OneMore:
    """A concept learned on top of others: its learner after the last step, and what was there before the first."""

    learner: nn.Module
    weights: dict[str, Tensor]
    tokens: dict[str, Any]
    earlier: list[dict[str, Tensor]]


def learn_one_more(base: Base, method: Method, earlier: Sequence[TrainedConcept]) -> OneMore:
    learners: list[nn.Module] = []

    class Holding(type(method)):  # type: ignore[misc]
        def begin_together(self, starts: Any) -> Any:
            learners.extend(super().begin_together(starts))
            return learners

    before = weights(base), dict(base.tokens), [stored_tensors(one) for one in earlier]
    learn(base, Holding(**method_settings(method)), "mug", earlier)
    return OneMore(learners[0], *before)


def stored_tensors(learned: TrainedConcept) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in (save_deltas(learned.deltas) | dict(learned.tokens)).items()}


def images(
    base: Base, method: Method, learned: Sequence[TrainedConcept], prompts: Sequence[str], batch_size: int = 16
) -> Tensor:
    """What the base draws with the concepts in it, in two steps."""
    with Composed(base, method, learned) as composed:
        return composed.sample(prompts, range(len(prompts)), replace(QUICK, batch_size=batch_size))


@torch.no_grad()
def predict(base: Base, prompts: Sequence[str]) -> Tensor:
    """What the denoiser says to one fixed noise for each prompt."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(base.latent_shape(), generator=generator).expand(len(prompts), -1, -1, -1)
    timesteps = torch.full((len(prompts),), 300, device=base.device)
    return base.predict(noisy.to(base.device), timesteps, base.encode_prompts(prompts))


def alike(method: Method, sizes: Sequence[int]) -> bool:
    """Whether what the concepts take is the same for all, as far as the method lets it be."""
    return min(sizes) >= (0.75 if method.name in VARY else 1) * max(sizes)


def weights(base: Base) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}


def hooks(base: Base) -> int:
    return sum(len(module._forward_hooks) for module in base.denoiser.modules())


def assert_same_deltas(left: dict[str, Delta], right: dict[str, Delta]) -> None:
    assert left.keys() == right.keys()
    for target, delta in left.items():
        assert torch.equal(delta.matrix(), right[target].matrix()), target


def assert_same_learned(left: TrainedConcept, right: TrainedConcept) -> None:
    assert (left.name, left.class_noun, dict(left.facts)) == (right.name, right.class_noun, dict(right.facts))
    assert_same_deltas(dict(left.deltas), dict(right.deltas))
    for mine, theirs in ((left.tokens, right.tokens), (left.extra, right.extra)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())
