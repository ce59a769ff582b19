"""Images as PNG files that record how they were made."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.files import write_png
from mnemon.models.base import Base
from mnemon.names import public_base
from mnemon.sampling.sampler import SamplingSettings

KEY = "mnemon"
KEYS_ON_DISK = {
    "guidance_scale": "guidance",
    "num_inference_steps": "steps",
    "negative_prompt": "negative",
    "revision": "state",
    "per_region": "apart",
}
"""Fields of `ImageMetadata` whose key in the file is another."""


@dataclass(frozen=True)
class ImageMetadata:
    """How an image was made.

    Attributes:
        base: as `names.public_base` says: no path of a folder or file.
        library: the name of its folder.
        revision: of the library, None for the bare base.
        sampler: as `sampler_name` gives it, "" where the file does not say.
        per_region: whether regions were generated on their own first (`mnemon.sampling.per_region`).
    """

    prompt: str
    seed: int
    guidance_scale: float
    num_inference_steps: int
    base: str
    negative_prompt: str = ""
    library: str | None = None
    revision: int | None = None
    concepts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    sampler: str = ""
    per_region: bool = False

    @staticmethod
    def of(base: Base, prompt: str, seed: int, settings: SamplingSettings, **others: Any) -> "ImageMetadata":
        """Of an image by `sample`; `others` are the remaining fields."""
        return ImageMetadata(
            prompt, seed, settings.guidance_scale, settings.num_inference_steps,
            public_base(base.name, base.family, base.fingerprint), settings.negative_prompt,
            sampler=sampler_name(base, settings.scheduler), **others,
        )  # fmt: skip


def sampler_name(base: Base, scheduler_name: str | None = None) -> str:
    """The sampler by the name that web interfaces use: "DDIM", or "Euler" for flows."""
    scheduler = base.schedule.sampling_scheduler(scheduler_name)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return "Euler"
    return type(scheduler).__name__.removesuffix("Scheduler")


def to_image(image: Tensor) -> Image.Image:
    """An image (3, height, width) in 0..1 as an 8-bit RGB image."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().numpy())


def save_image(path: Path, image: Tensor, metadata: ImageMetadata) -> None:
    """Write one image (3, height, width) in 0..1 as PNG, atomically: the metadata as JSON under `mnemon`, and under
    `parameters` as the line of text that other tools show."""
    png = to_image(image)
    info = PngInfo()
    stored = {KEYS_ON_DISK.get(name, name): value for name, value in vars(metadata).items()}
    info.add_text(KEY, json.dumps(stored))  # ASCII, so a plain tEXt chunk
    info.add_text("parameters", _parameters(metadata, png))
    write_png(path, png, info)


def read_metadata(path: Path) -> ImageMetadata:
    """The metadata that `save_image` wrote.

    Raises:
        MnemonError: no such file, not a PNG, or not one that mnemon made.
    """
    try:
        with Image.open(path) as image:
            image.load()
            stored = json.loads(image.info[KEY])
        names = {key: name for name, key in KEYS_ON_DISK.items()}
        lists = {name: tuple(stored.get(name, ())) for name in ("concepts", "regions")}
        return ImageMetadata(**{names.get(key, key): value for key, value in stored.items()} | lists)
    except FileNotFoundError:
        raise MnemonError(f"There is no image '{path}'.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise MnemonError(f"'{path}' cannot be read as an image: {error}.") from error
    except (KeyError, TypeError, ValueError, AttributeError):
        raise MnemonError(f"'{path}' does not say how it was made: it is not mnemon's, or was edited.") from None


def _parameters(metadata: ImageMetadata, image: Image.Image) -> str:
    """The form that Stable Diffusion web interfaces write and read."""
    lines = [metadata.prompt]
    if metadata.negative_prompt:
        lines.append(f"Negative prompt: {metadata.negative_prompt}")
    sampler = f"Sampler: {metadata.sampler}, " if metadata.sampler else ""
    lines.append(
        f"Steps: {metadata.num_inference_steps}, {sampler}CFG scale: {metadata.guidance_scale:g}, "
        f"Seed: {metadata.seed}, Size: {image.width}x{image.height}, Model: {metadata.base}"
    )
    return "\n".join(lines)


def image_strip(images: Tensor, count: int) -> Image.Image:
    """The first `count` of images (n, 3, height, width) in 0..1 side by side."""
    return Image.fromarray(np.concatenate([np.asarray(to_image(image)) for image in images[:count]], axis=1))
