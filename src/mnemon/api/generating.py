"""Images from a library or a bare base."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemon.api.memory import gpu_errors
from mnemon.api.opening import base_named, base_of
from mnemon.errors import MnemonError
from mnemon.files import check_writable
from mnemon.library import Library
from mnemon.models import Base
from mnemon.models.prompt_syntax import escape, parse_prompt, without_concepts
from mnemon.models.tokens import TOKEN, concepts_in
from mnemon.models.weighted_prompt import strengths_in
from mnemon.sampling import ImageMetadata, SamplingSettings, fitted, sample, save_image
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
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    batch_size: int | None = None,
    regions: Sequence[Region] = (),
    auto_layout: bool = False,
    feather: float = 0.0,
    per_region: bool = False,
    out: str | Path | None = None,
    scheduler: str | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_file: Callable[[Path], None] | None = None,
) -> Tensor:
    """Sample `num_images_per_prompt` images of each prompt with seeds `seed`, `seed + 1`, ...; `<name>` is a concept.

    In prompts, the negative one and regions' included, `(word:1.3)`, `(word)` and `[word]` weigh words, and
    `<name:0.8>` scales a concept (`mnemon.models.prompt_syntax`).

    Args:
        library: a library or its folder; None samples from the bare base.
        guidance_scale: of classifier-free guidance; 1 switches it off. Like the steps and the images at once by default
            as the base's profile says.
        regions: parts of every image with a prompt of their own; a prompt that is nothing but a concept's token is
            completed by its class noun and the scene of the image's prompt ("<rex> dog on the beach").
        auto_layout: give each concept of the prompt a region of its own, spread over the image.
        feather: width of the transition at the regions' edges, as a fraction of the image's side.
        per_region: generate each region as an image of its own first (`mnemon.sampling.per_region`); for bases that
            generate one centred object, whatever the regional prompts.
        out: a folder for PNG files with metadata, each written as soon as its batch is sampled.
        scheduler: one of the base's samplers by diffusers' name; its default without.
        on_step: called with (denoising steps done, steps in all).
        on_file: called with each file once it is written.

    Returns:
        (n, 3, side, side) in 0..1, prompts in order.

    Raises:
        MnemonError: a prompt names an unknown concept or has a mark that is nearly right, `per_region` without
            regions, library or base cannot be opened, or nothing can be written to `out`.
    """
    if per_region and not (regions or auto_layout):
        raise MnemonError("Only regions can be sampled one by one (per_region): give regions, or use auto_layout.")
    opened = Library.open(library) if isinstance(library, str | Path) else library
    read = cache(partial(parse_prompt, known=opened.names() if opened is not None else ()))
    read_negative = read(negative_prompt)
    prompts = [text for text in ([prompt] if isinstance(prompt, str) else prompt) for _ in range(num_images_per_prompt)]
    seeds = [seed + index % num_images_per_prompt for index in range(len(prompts))]
    layouts = [_layout(opened, read(text), regions, auto_layout, read) for text in prompts]
    if len({len(layout) for layout in layouts}) > 1:
        raise MnemonError("The prompts name different numbers of concepts: sample them in separate calls.")
    if auto_layout:
        prompts = [without_concepts(text) for text in prompts]
    parsed = [read(text) for text in prompts]
    places = [[replace(region, prompt=read(region.prompt)) for region in layout] for layout in layouts]
    if out is not None:
        check_writable(Path(out))  # before anything is sampled
    model = base_named(base or "world") if opened is None else base_of(opened, base)
    origin: dict[str, Any] = {"per_region": per_region}
    if opened is not None:
        origin |= {
            "library": opened.path.resolve().name,
            "revision": opened.revision,
            "concepts": tuple(opened.names()),
        }
    images: list[Tensor] = []
    given = {
        "guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps, "batch_size": batch_size,
    }  # fmt: skip
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    typed = replace(fitted(SamplingSettings(), model), negative_prompt=negative_prompt, scheduler=scheduler, **chosen)
    settings = replace(typed, negative_prompt=read_negative)
    with gpu_errors(model, batch_size=typed.batch_size), ExitStack() as stack:
        plain = (
            stack.enter_context(compose_library(opened, model)).sample if opened is not None else partial(sample, model)
        )
        at_once = settings.batch_size
        batches = [slice(start, start + at_once) for start in range(0, len(prompts), at_once)]
        tell = on_step and _Counted(on_step, len(batches))
        for batch in batches:
            if per_region:
                images += sample_per_region(
                    plain, parsed[batch], seeds[batch], settings, regions=places[batch], feather=feather, on_step=tell
                )
            else:
                own = places[batch] if regions or auto_layout else None
                images += plain(parsed[batch], seeds[batch], settings, regions=own, feather=feather, on_step=tell)
            if out is not None:
                metadata = [  # prompts as typed, so that they can be typed again
                    ImageMetadata.of(model, text, one, typed, regions=tuple(map(region_to_text, layout)), **origin)
                    for text, one, layout in zip(prompts[batch], seeds[batch], layouts[batch], strict=True)
                ]
                _save_all(Path(out), images[batch], metadata, on_file)
    return torch.stack(images) if images else torch.zeros(0, 3, model.resolution, model.resolution)


class _Counted:
    """Called with the steps of one batch after the other, and tells of them as of all of them."""

    def __init__(self, on_step: Callable[[int, int], None], batches: int) -> None:
        self._on_step, self._left, self._before = on_step, batches, 0

    def __call__(self, done: int, of: int) -> None:
        self._on_step(self._before + done, self._before + self._left * of)
        if done == of:
            self._before, self._left = self._before + of, self._left - 1


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


def _save_all(
    folder: Path,
    images: Sequence[Tensor],
    metadata: Sequence[ImageMetadata],
    on_file: Callable[[Path], None] | None,
) -> None:
    """`00000.png` and so on, after the images that are in the folder already."""
    taken = [int(file.stem) for file in folder.glob("[0-9]*.png") if file.stem.isdigit()]
    first = max(taken, default=-1) + 1
    for index, (image, own) in enumerate(zip(images, metadata, strict=True)):
        file = folder / f"{first + index:05d}.png"
        save_image(file, image, own)
        if on_file is not None:
            on_file(file)
