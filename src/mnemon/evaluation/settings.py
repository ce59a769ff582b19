"""How images for scores are sampled; the same settings give the same images, so scores compare across revisions."""

from dataclasses import dataclass
from typing import Any

from mnemon.errors import MnemonError
from mnemon.evaluation.prompts import prompt_set
from mnemon.models.base import Base
from mnemon.sampling import SamplingSettings, fitted


@dataclass(frozen=True)
class EvalSettings:
    """Settings of `evaluate`.

    Attributes:
        num_images: of each concept. Image k has evaluation prompt k of the concept, in turn, and seed first_seed + k.
        first_seed: of each concept's first image; control prompts have one image each, from the same seed on.
        guidance_scale: scale of classifier-free guidance.
        num_inference_steps: sampling steps.
        batch_size: images at a time; changes them by rounding only.
        scheduler: of the sampling, by its name; the base's default without.
        negative_prompt: the prompt of the unconditional prediction.
        templates: evaluation prompts of every concept with one `{}` for it, in place of its own or the encoders' set.

    Raises:
        MnemonError: a number is below 1, or a template has no `{}`.
    """

    num_images: int = 16
    first_seed: int = 1000
    guidance_scale: float = 4.0
    num_inference_steps: int = 20
    batch_size: int = 16
    scheduler: str | None = None
    negative_prompt: str = ""
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.num_images, self.num_inference_steps, self.batch_size) < 1:
            raise MnemonError("For scores, num_images, num_inference_steps and batch_size must each be at least 1.")
        if stray := [template for template in self.templates if "{}" not in template]:
            raise MnemonError(f"The evaluation prompt '{stray[0]}' names no concept: write {{}} where it stands.")

    def seeds(self, count: int) -> list[int]:
        return list(range(self.first_seed, self.first_seed + count))

    @classmethod
    def of_base(cls, base: Base) -> "EvalSettings":
        """The defaults for a base, by its profile."""
        own = fitted(cls().sampling, base)
        return cls(
            guidance_scale=own.guidance_scale,
            num_inference_steps=own.num_inference_steps,
            batch_size=own.batch_size,
        )

    @property
    def sampling(self) -> SamplingSettings:
        return SamplingSettings(
            self.guidance_scale, self.num_inference_steps, self.negative_prompt, self.batch_size, self.scheduler
        )

    @property
    def uncommon(self) -> dict[str, Any]:
        """Those that results rarely have, as JSON: only what is not the default."""
        values = {"scheduler": self.scheduler, "negative": self.negative_prompt, "templates": list(self.templates)}
        return {key: value for key, value in values.items() if value}

    def to_json(self) -> dict[str, Any]:
        """With the keys of results that exist."""
        return {
            "pictures": self.num_images,
            "steps": self.num_inference_steps,
            "guidance": self.guidance_scale,
            "batch": self.batch_size,
            "first_seed": self.first_seed,
            **self.uncommon,
        }

    def to_row_json(self, prompts: str) -> dict[str, Any]:
        """As a library's rows say it, which count seeds for each template of the prompt set `prompts`."""
        count = len(self.templates or prompt_set(prompts).templates)
        each, rest = divmod(self.num_images, count)
        return {
            "prompts": prompts,
            "seeds_per_prompt": self.num_images / count if rest else each,
            "first_seed": self.first_seed,
            "guidance": self.guidance_scale,
            "steps": self.num_inference_steps,
            "batch": self.batch_size,
            **self.uncommon,
        }
