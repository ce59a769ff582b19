"""Images as PNG files that say how they were made, and can be made again from what they say."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.files import write_png
from mnemon.models.base import Base

KEY = "mnemon"


@dataclass(frozen=True)
class ImageMetadata:
    """How an image was made. `state` is the number of commits the library held, None for the bare base; `sampler` is
    what `sampler_name` says, "" where that was not noted; `apart` says that regions were drawn apart first."""

    prompt: str
    seed: int
    guidance: float
    steps: int
    base: str
    negative: str = ""
    library: str | None = None
    state: int | None = None
    concepts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    sampler: str = ""
    apart: bool = False


def sampler_name(base: Base) -> str:
    """What takes the base's images out of noise, as web interfaces call it: "DDIM", or "Euler" for flows."""
    scheduler = base.sampling_scheduler()
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return "Euler"
    return type(scheduler).__name__.removesuffix("Scheduler")


def to_image(image: Tensor) -> Image.Image:
    """An image (3, height, width) in 0..1 as an 8-bit RGB image."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().numpy())


def save_image(path: Path, image: Tensor, facts: ImageMetadata) -> None:
    """Write one image (3, height, width) in 0..1 as PNG: the facts as JSON under `mnemon`, and under `parameters` as
    the line of text that other tools show. The file is there whole or not at all."""
    png = to_image(image)
    info = PngInfo()
    info.add_text(KEY, json.dumps(asdict(facts)))  # ASCII, so a plain tEXt chunk
    info.add_text("parameters", _parameters(facts, png))
    write_png(path, png, info)


def read_facts(path: Path) -> ImageMetadata:
    """What `save_image` wrote.

    Raises:
        MnemonError: no such file, not a PNG, or not one that mnemon made.
    """
    try:
        with Image.open(path) as image:
            image.load()
            stored = json.loads(image.info[KEY])
        lists = {name: tuple(stored.get(name, ())) for name in ("concepts", "regions")}
        return ImageMetadata(**{**stored, **lists})
    except FileNotFoundError:
        raise MnemonError(f"There is no image '{path}'.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise MnemonError(f"'{path}' cannot be read as an image: {error}.") from error
    except (KeyError, TypeError, ValueError):
        raise MnemonError(f"'{path}' does not say how it was made: it is not mnemon's, or was edited.") from None


def _parameters(facts: ImageMetadata, image: Image.Image) -> str:
    """The form that Stable Diffusion web interfaces write and read."""
    lines = [facts.prompt]
    if facts.negative:
        lines.append(f"Negative prompt: {facts.negative}")
    sampler = f"Sampler: {facts.sampler}, " if facts.sampler else ""
    lines.append(
        f"Steps: {facts.steps}, {sampler}CFG scale: {facts.guidance:g}, Seed: {facts.seed}, "
        f"Size: {image.width}x{image.height}, Model: {facts.base}"
    )
    return "\n".join(lines)


def image_strip(images: Tensor, count: int) -> Image.Image:
    """The first `count` of images (n, 3, height, width) in 0..1 side by side."""
    return Image.fromarray(np.concatenate([np.asarray(to_image(image)) for image in images[:count]], axis=1))
