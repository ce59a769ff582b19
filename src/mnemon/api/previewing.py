"""One page that shows every concept of a library, at the same prompts and seeds whenever it is made."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mnemon.api.memory import gpu_errors
from mnemon.api.opening import base_of
from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.models import Base
from mnemon.models.prompt_syntax import escape, parse_prompt
from mnemon.report.images import ImageCell, ImageGrid, Thumbnail, thumbnail
from mnemon.report.rendering import write_page
from mnemon.sampling import SamplingSettings, fitted, to_image
from mnemon.sampling.composing import compose_library

PROMPTS = ("a photo of {}", "a photo of {} in the snow", "a photo of {} on the beach")
SAMPLING = SamplingSettings(num_inference_steps=20)

Images = dict[str, list[Thumbnail]]
"""Prompt as it was sampled -> its images."""


def preview(
    library: str | Path | Library,
    out: str | Path,
    *,
    base: str | Base | None = None,
    every: bool = False,
    prompts: Sequence[str] = PROMPTS,
    number: int = 2,
    on_state: Callable[[int, int], None] | None = None,
) -> Path:
    """Write one self-contained HTML page with images of all concepts, as the library is now or after every commit.

    Args:
        out: the page; one that is there already is replaced.
        every: a column for every revision of the library, instead of one for every prompt.
        prompts: with `{}` where the concept is named; marks as in `generate`.
        number: images of each prompt, with seeds 0, 1, ...
        on_state: called with the revision that is sampled and the newest one.

    Raises:
        MnemonError: the library has no concepts, or a prompt has no place for one.
    """
    opened = Library.open(library) if isinstance(library, str | Path) else library
    for prompt in prompts:
        if "{}" not in prompt:
            raise MnemonError(f'The prompt "{prompt}" has no place for the concept: write {{}} where it is named.')
    prompts = list(dict.fromkeys(prompts))
    states = range(1, opened.revision + 1) if every else [opened.revision]
    past = {state: Library.open(opened.path, at=state) for state in states}
    if not any(one.names() for one in past.values()):
        raise MnemonError(f"The library {opened.path} has no concepts to show: teach it one with `mnemon learn`.")
    loaded = base_of(opened, base)
    cells: dict[str, dict[str, ImageCell]] = {}
    for state, revision in past.items():
        if on_state is not None:
            on_state(state, opened.revision)
        for name, images in _sample(revision, loaded, prompts, number).items():
            of_concept = cells.setdefault(name, {})
            if every:
                of_concept[f"after {state}"] = ImageCell(images, _score(revision, name))
            else:
                of_concept |= {
                    prompt: ImageCell({text: shown})
                    for prompt, (text, shown) in zip(prompts, images.items(), strict=True)
                }
    heads = [f"after {state}" for state in states] if every else list(prompts)
    return write_preview(Path(out), opened, cells, heads, prompts, number)


def write_preview(
    path: Path,
    library: Library,
    cells: Mapping[str, Mapping[str, ImageCell]],
    columns: Sequence[str],
    prompts: Sequence[str],
    number: int,
) -> Path:
    """Write the page to `path`; `cells` are by concept and column, of which one may be missing."""
    rows = {name: [of_concept.get(column) for column in columns] for name, of_concept in cells.items()}
    return write_page(
        path,
        "preview.html",
        title=f"All concepts of {library.path.resolve().name}",
        introduction="The same prompts and seeds every time; numbers are identity alignment where it was measured.",
        facts={
            "base": library.public_base,
            "method": library.method.name,
            "revision": str(library.revision),
            "prompts": ", ".join(prompts),
            "seeds": f"0 to {number - 1}",
        },
        grid=ImageGrid(columns, rows),
    )


def _sample(library: Library, base: Base, prompts: Sequence[str], number: int) -> dict[str, Images]:
    """Concept -> its images of each prompt."""
    sampled: dict[str, Images] = {}
    with compose_library(library, base) as composed, gpu_errors(base):
        for concept in composed.learned:
            noun = escape(concept.class_noun) if concept.class_noun else None
            token = composed.method.prompt_name(concept.name, noun)
            for text in (prompt.replace("{}", token) for prompt in prompts):
                parsed = parse_prompt(text, library.names())
                images = composed.sample([parsed] * number, range(number), fitted(SAMPLING, base))
                sampled.setdefault(concept.name, {})[text] = [thumbnail(to_image(image)) for image in images]
    return sampled


def _score(library: Library, name: str) -> float | None:
    """Identity alignment as it was measured at the library's revision, if it was."""
    row = library.rows().get(library.revision, {"concepts": {}})
    value: float | None = row["concepts"].get(name, {}).get("identity_alignment")
    return value
