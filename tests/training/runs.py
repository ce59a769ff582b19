"""Small runs of the training loop."""

from collections.abc import Sequence
from typing import Any

import torch

from mnemon.methods import TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.methods.stamina import Stamina
from mnemon.models import Base
from mnemon.training import ConceptTask, Examples, TrainingSettings, train

LORA = Lora(rank=2, steps=6, batch_size=4)
STAMINA = Stamina(rank=2, mask_rank=2, token_hidden=8, b0=0.1, steps=6, batch_size=4)


def latents(base: Base, count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *base.latent_shape(), generator=torch.Generator().manual_seed(seed))


def task(
    base: Base, prompts: Sequence[str] = ("a photo of <rex> dog",) * 3, name: str = "rex", **more: Any
) -> ConceptTask:
    return ConceptTask(name, "dog", Examples(latents(base, len(prompts)), prompts), **more)


def learn(
    base: Base, method=LORA, settings: dict | None = None, prior: Examples | None = None, **more
) -> TrainedConcept:
    return train(base, method, [task(base, prior=prior)], settings=TrainingSettings(**settings or {}), **more)[0]
