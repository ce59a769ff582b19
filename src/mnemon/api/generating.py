"""Images from a library or a bare base."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.api.opening import base_named, base_of, in_base
from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.models import Base
from mnemon.models.tokens import TOKEN, concepts_in
from mnemon.sampling import ImageMetadata, sample, sampler_name, save_image
from mnemon.sampling.apart import draw_apart
from mnemon.sampling.regions import Region, region_text, scene_of, spread_out


def generate(
    library: str | Path | Library | None,
    prompt: str | Sequence[str],
    *,
    base: str | Base | None = None,
    negative_prompt: str = "",
    seed: int = 0,
    num_images_per_prompt: int = 1,
    guidance_scale: float = 4.0,
    num_inference_steps: int = 30,
    batch_size: int = 8,
    regions: Sequence[Region] = (),
    spread: bool = False,
    feather: float = 0.0,
    apart: bool = False,
    out: str | Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw `num_images_per_prompt` images of each prompt, with seeds `seed`, `seed + 1`, ...; `<name>` stands for a concept.

    Args:
        library: a library or its folder; None draws from the bare base.
        guidance_scale: scale of classifier-free guidance; 1 switches it off.
        regions: parts of every image that hear a prompt of their own; a region that names nothing but a concept is
            told its class noun and the scene of the image's prompt as well ("<rex> dog on the beach").
        spread: give each concept of the prompt a region of its own, spread over the image.
        feather: width of the fading at the regions' edges, as a fraction of the image's side.
        apart: draw each region on a canvas of its own first, as `mnemon.sampling.apart` does; for bases that draw one
            thing in the middle, whatever their regions hear.
        out: a folder for PNG files that say how they were made.

    Returns:
        (n, 3, side, side) in 0..1, prompts in order.

    Raises:
        MnemonError: a prompt names an unknown concept, there is nothing to draw apart, or library or base cannot be
            opened.
    """
    if apart and not (regions or spread):
        raise MnemonError("Only regions can be drawn apart: say what is where, or spread the concepts.")
    opened = Library.open(library) if isinstance(library, str | Path) else library
    found = base_named(base or "world") if opened is None else base_of(opened, base)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    texts = [text for text in prompts for _ in range(num_images_per_prompt)]
    seeds = [seed + index for _ in prompts for index in range(num_images_per_prompt)]
    how = {
        "negative_prompt": negative_prompt,
        "guidance_scale": guidance_scale,
        "num_inference_steps": num_inference_steps,
    }
    options: dict[str, Any] = {"seeds": seeds, "batch_size": batch_size, "on_step": on_step, **how}
    if regions or spread:
        own = {text: _regions(opened, text, regions, spread) for text in prompts}
        if len({len(found) for found in own.values()}) > 1:
            raise MnemonError("The prompts name different numbers of concepts: draw them in calls of their own.")
        options |= {"regions": [own[text] for text in texts], "feather": feather}
        texts = [_around(text) if spread else text for text in texts]
    if opened is None:
        images = _drawn(partial(sample, found), texts, options, apart)
    else:
        with in_base(opened, found) as composed:
            images = _drawn(composed.sample, texts, options, apart)
    if out is not None:
        _save_all(Path(out), images, _facts(texts, seeds, options.get("regions"), opened, found, apart=apart, **how))
    return images


def _drawn(sample: Callable[..., Tensor], texts: list[str], options: dict[str, Any], apart: bool) -> Tensor:
    return draw_apart(sample, texts, **options) if apart else sample(texts, **options)


def _regions(library: Library | None, prompt: str, regions: Sequence[Region], spread: bool) -> list[Region]:
    """The regions of a prompt's images, with their whole prompts."""
    if spread:
        names = concepts_in(prompt)
        regions = [Region(f"<{name}>", box) for name, box in zip(names, spread_out(len(names)), strict=True)]
    return [Region(_told(library, region.prompt, prompt), region.where) for region in regions]


def _told(library: Library | None, told: str, prompt: str) -> str:
    """A region's prompt; of one that is nothing but a concept's token, the token in a whole prompt."""
    alone = TOKEN.fullmatch(told)
    if library is None or alone is None or alone[1].lower() not in library.names():
        return told
    name = alone[1].lower()
    called = library.method.prompt_name(name, library.concepts()[name].class_noun)
    return f"a photo of {called} {scene_of(prompt)}".strip()


def _around(prompt: str) -> str:
    """The prompt of an image whose concepts have regions of their own: the same without their tokens."""
    return " ".join(TOKEN.sub("", prompt).split())


def _facts(
    texts: Sequence[str],
    seeds: Sequence[int],
    regions: Sequence[Sequence[Region]] | None,
    library: Library | None,
    base: Base,
    **how: Any,
) -> list[ImageMetadata]:
    """How each image was made."""
    if library is not None:
        how |= {"library": str(library.path), "state": library.state, "concepts": tuple(library.names())}
    how |= {"base": base.name, "sampler": sampler_name(base)}
    places = [tuple(map(region_text, own)) for own in regions or [()] * len(texts)]
    return [ImageMetadata(text, seed, regions=own, **how) for text, seed, own in zip(texts, seeds, places, strict=True)]


def _save_all(folder: Path, images: Tensor, facts: Sequence[ImageMetadata]) -> None:
    """`00000.png` and so on, going on after the images that are there already."""
    taken = [int(file.stem) for file in folder.glob("[0-9]*.png") if file.stem.isdigit()]
    first = max(taken, default=-1) + 1
    for index, (image, fact) in enumerate(zip(images, facts, strict=True)):
        save_image(folder / f"{first + index:05d}.png", image, fact)
