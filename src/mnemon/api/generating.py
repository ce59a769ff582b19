"""Images from a library or a bare base."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.api.opening import base_named, base_of
from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.models import Base
from mnemon.models.prompt_syntax import escape, parse_prompt, without_concepts
from mnemon.models.tokens import TOKEN, concepts_in
from mnemon.models.weighted_prompt import strengths_in
from mnemon.sampling import ImageMetadata, SamplingSettings, sample, save_image
from mnemon.sampling.composing import compose_library
from mnemon.sampling.per_region import sample_per_region
from mnemon.sampling.regions import Region, layout_boxes, region_to_text, scene_of


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
    auto_layout: bool = False,
    feather: float = 0.0,
    per_region: bool = False,
    out: str | Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample `num_images_per_prompt` images of each prompt with seeds `seed`, `seed + 1`, ...; `<name>` is a concept.

    In prompts, the negative one and regions' included, `(word:1.3)`, `(word)` and `[word]` weigh words, and
    `<name:0.8>` scales a concept (`mnemon.models.prompt_syntax`).

    Args:
        library: a library or its folder; None samples from the bare base.
        guidance_scale: of classifier-free guidance; 1 switches it off.
        regions: parts of every image with a prompt of their own; a prompt that is nothing but a concept's token is
            completed by its class noun and the scene of the image's prompt ("<rex> dog on the beach").
        auto_layout: give each concept of the prompt a region of its own, spread over the image.
        feather: width of the transition at the regions' edges, as a fraction of the image's side.
        per_region: generate each region as an image of its own first (`mnemon.sampling.per_region`); for bases that
            generate one centred object, whatever the regional prompts.
        out: a folder for PNG files with metadata.

    Returns:
        (n, 3, side, side) in 0..1, prompts in order.

    Raises:
        MnemonError: a prompt names an unknown concept or has a mark that is nearly right, `per_region` without
            regions, or library or base cannot be opened.
    """
    if per_region and not (regions or auto_layout):
        raise MnemonError("Only regions can be sampled one by one (per_region): give regions, or use auto_layout.")
    opened = Library.open(library) if isinstance(library, str | Path) else library
    read = cache(partial(parse_prompt, known=opened.names() if opened is not None else ()))
    typed = SamplingSettings(guidance_scale, num_inference_steps, negative_prompt, batch_size)
    settings = replace(typed, negative_prompt=read(negative_prompt))
    prompts = [text for text in ([prompt] if isinstance(prompt, str) else prompt) for _ in range(num_images_per_prompt)]
    seeds = [seed + index % num_images_per_prompt for index in range(len(prompts))]
    layouts = [_layout(opened, read(text), regions, auto_layout, read) for text in prompts]
    if len({len(layout) for layout in layouts}) > 1:
        raise MnemonError("The prompts name different numbers of concepts: sample them in separate calls.")
    if auto_layout:
        prompts = [without_concepts(text) for text in prompts]
    parsed = [read(text) for text in prompts]
    places = [[replace(region, prompt=read(region.prompt)) for region in layout] for layout in layouts]
    model = base_named(base or "world") if opened is None else base_of(opened, base)
    with ExitStack() as stack:
        plain = (
            stack.enter_context(compose_library(opened, model)).sample if opened is not None else partial(sample, model)
        )
        if per_region:
            images = sample_per_region(plain, parsed, seeds, settings, regions=places, feather=feather, on_step=on_step)
        else:
            own = places if regions or auto_layout else None
            images = plain(parsed, seeds, settings, regions=own, feather=feather, on_step=on_step)
    if out is not None:
        origin: dict[str, Any] = {"per_region": per_region}
        if opened is not None:
            origin |= {
                "library": opened.path.resolve().name,
                "revision": opened.revision,
                "concepts": tuple(opened.names()),
            }
        metadata = [  # prompts as typed, so that they can be typed again
            ImageMetadata.of(model, text, one, typed, regions=tuple(map(region_to_text, layout)), **origin)
            for text, one, layout in zip(prompts, seeds, layouts, strict=True)
        ]
        _save_all(Path(out), images, metadata)
    return images


def _layout(
    library: Library | None, prompt: str, regions: Sequence[Region], auto_layout: bool, read: Callable[[str], str]
) -> list[Region]:
    """The regions of a prompt's images, their prompts completed, with their marks."""
    if auto_layout:
        names, strengths = concepts_in(prompt), strengths_in(prompt)
        tokens = [f"<{name}:{strengths[name]:g}>" if name in strengths else f"<{name}>" for name in names]
        regions = [Region(token, box) for token, box in zip(tokens, layout_boxes(len(names)), strict=True)]
    return [replace(region, prompt=_completed(library, region.prompt, prompt, read)) for region in regions]


def _completed(library: Library | None, region_prompt: str, prompt: str, read: Callable[[str], str]) -> str:
    """A region's prompt; if it is nothing but a concept's token, the token, with its marks, in a whole prompt."""
    token = TOKEN.fullmatch(read(region_prompt))
    if library is None or token is None:
        return region_prompt
    name = token[1].lower()
    noun = library.concepts()[name].class_noun
    called = library.method.prompt_name(name, escape(noun) if noun else None).replace(f"<{name}>", region_prompt)
    return f"a photo of {called} {escape(scene_of(prompt))}".strip()


def _save_all(folder: Path, images: Tensor, metadata: Sequence[ImageMetadata]) -> None:
    """`00000.png` and so on, after the images that are in the folder already."""
    taken = [int(file.stem) for file in folder.glob("[0-9]*.png") if file.stem.isdigit()]
    first = max(taken, default=-1) + 1
    for index, (image, own) in enumerate(zip(images, metadata, strict=True)):
        save_image(folder / f"{first + index:05d}.png", image, own)
