"""What each family of bases is trained and sampled with where the user says nothing.

Values of published bases are those usual among the tools that train them (diffusers' examples, kohya, ai-toolkit) and
in their pipelines; none of them was tried here. The built-in base, and others of small images, keep the methods' own
settings, which were tuned on it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnemon.models.base import Base
    from mnemon.models.quantization import Weights

SMALL_SIDE = 256
"""Bases of smaller images than this are small themselves."""
FEW_STEPS = re.compile(r"turbo|lightning|schnell", re.IGNORECASE)
"""In the name of a base that was distilled to few steps; the configs of Stable Diffusion 3.5's turbo do not say it."""
TURBO_SHIFT = 3.0
"""Of the noise schedule of Z-Image-Turbo; that of Z-Image itself is 6."""


@dataclass(frozen=True)
class Profile:
    """Defaults for one kind of base; None leaves a value to the method.

    Attributes:
        weights: precision of the weights on a GPU; on a CPU it is fp32.
        batch_size: images of a training step.
        gradient_checkpointing: recompute activations in the backward pass.
        steps: training steps of a concept.
        lr_factor: what the methods' learning rates of weights, tuned on the built-in base, are multiplied by.
        token_lr_factor: the same for tokens' embeddings.
        lr_warmup_steps: steps over which the rates rise.
        max_grad_norm: norm to which gradients are clipped.
        guidance_scale, num_inference_steps: of sampling, in this project's convention (1 is no guidance).
        images_at_once: the most images that are sampled in one pass by default; None for no bound.
    """

    weights: "Weights" = "bf16"
    batch_size: int | None = 4
    gradient_checkpointing: bool = True
    steps: int | None = 500
    lr_factor: float = 0.05
    token_lr_factor: float = 0.1
    lr_warmup_steps: int = 20
    max_grad_norm: float | None = 1.0
    guidance_scale: float = 4.0
    num_inference_steps: int = 30
    images_at_once: int | None = 4

    def training(self) -> dict[str, Any]:
        """The settings of `TrainingSettings` that are not the method's own."""
        names = ("batch_size", "gradient_checkpointing", "steps", "lr_warmup_steps", "max_grad_norm")
        return {name: value for name in names if (value := getattr(self, name))}

    def rates(self, method: Mapping[str, Any]) -> dict[str, float]:
        """The learning rates among a method's default settings, as this kind of base wants them."""
        factors = {"learning_rate": self.lr_factor, "token_lr": self.token_lr_factor}
        return {name: method[name] * factor for name, factor in factors.items() if name in method and factor != 1}


SMALL = Profile(
    weights="fp32",
    batch_size=None,
    gradient_checkpointing=False,
    steps=None,
    lr_factor=1.0,
    token_lr_factor=1.0,
    lr_warmup_steps=0,
    max_grad_norm=None,
    images_at_once=None,
)
"""Of the built-in base."""
PROFILES: dict[str, Profile] = {
    "sd": Profile(guidance_scale=7.5, gradient_checkpointing=False),
    "sdxl": Profile(guidance_scale=5.0),
    "sd3": Profile(guidance_scale=4.5, num_inference_steps=28, images_at_once=2),
    "flux": Profile(guidance_scale=3.5, num_inference_steps=28, images_at_once=2),
    "flux2": Profile(guidance_scale=4.0, num_inference_steps=28, images_at_once=1),
    "flux2-klein": Profile(guidance_scale=4.0, images_at_once=2),
    "qwen-image": Profile(guidance_scale=4.0, images_at_once=1),
    "z-image": Profile(guidance_scale=5.0, images_at_once=2),
    "sd, few steps": Profile(guidance_scale=1.0, num_inference_steps=4, gradient_checkpointing=False),
    "sdxl, few steps": Profile(guidance_scale=1.0, num_inference_steps=4),
    "sd3, few steps": Profile(guidance_scale=1.0, num_inference_steps=4, images_at_once=2),
    "flux, few steps": Profile(guidance_scale=1.0, num_inference_steps=4, images_at_once=2),
    "flux2-klein, few steps": Profile(guidance_scale=1.0, num_inference_steps=4, images_at_once=2),
    "z-image, few steps": Profile(guidance_scale=1.0, num_inference_steps=8, images_at_once=2),
}
"""By family; and for its bases that were distilled to few steps."""


def profile_of(base: "Base") -> Profile:
    """The profile of a base, which may be without weights."""
    if base.resolution < SMALL_SIDE:
        return SMALL
    few = f"{base.family}, few steps"
    return PROFILES[few if few in PROFILES and has_few_steps(base) else base.family]


def has_few_steps(base: "Base") -> bool:
    """Whether a base was distilled to be sampled in a few steps, by its scheduler and configs, or else its name."""
    scheduler, denoiser = base.scheduler_config(), getattr(base.denoiser, "config", {})
    if base.family == "flux":
        return not denoiser.get("guidance_embeds")
    if base.family == "flux2-klein":
        return base.distilled
    if base.family == "z-image":
        return float(scheduler.get("shift", TURBO_SHIFT)) <= TURBO_SHIFT
    return _trailing(scheduler) or FEW_STEPS.search(base.name.rstrip("/").rpartition("/")[2]) is not None


def _trailing(scheduler: Mapping[str, Any]) -> bool:
    """Latent consistency models, and SD and SDXL Turbo and Lightning. Trailing timesteps alone also go with a schedule
    that ends in pure noise, and with the velocity as target."""
    if scheduler.get("_class_name") == "LCMScheduler":
        return True
    ordinary = scheduler.get("rescale_betas_zero_snr") or scheduler.get("prediction_type") == "v_prediction"
    return scheduler.get("timestep_spacing") == "trailing" and not ordinary
