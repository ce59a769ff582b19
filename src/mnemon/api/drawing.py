"""Pictures from a library or a bare base."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.api.opening import base_named, base_of, in_base
from mnemon.library import Library
from mnemon.models import Base
from mnemon.sampling import PictureFacts, draw, save_picture


def generate(
    library: str | Path | Library | None,
    prompt: str | Sequence[str],
    *,
    base: str | Base | None = None,
    negative: str = "",
    seed: int = 0,
    number: int = 1,
    guidance: float = 4.0,
    steps: int = 30,
    batch: int = 8,
    out: str | Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw `number` pictures of each prompt, with seeds `seed`, `seed + 1`, ...; `<name>` stands for a concept.

    Args:
        library: a library or its folder; None draws from the bare base.
        guidance: scale of classifier-free guidance; 1 switches it off.
        out: a folder for PNG files that say how they were made.

    Returns:
        (n, 3, side, side) in 0..1, prompts in order.

    Raises:
        MnemonError: a prompt names an unknown concept, or library or base cannot be opened.
    """
    opened = Library.open(library) if isinstance(library, str | Path) else library
    found = base_named(base or "world") if opened is None else base_of(opened, base)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    texts = [text for text in prompts for _ in range(number)]
    seeds = [seed + index for _ in prompts for index in range(number)]
    how: dict[str, Any] = {"negative": negative, "guidance": guidance, "steps": steps}
    options: dict[str, Any] = {"seeds": seeds, "batch": batch, "on_step": on_step, **how}
    if opened is None:
        pictures = draw(found, texts, **options)
    else:
        with in_base(opened, found) as composed:
            pictures = composed.draw(texts, **options)
    if out is not None:
        if opened is not None:
            how |= {"library": str(opened.path), "state": opened.state, "concepts": tuple(opened.names())}
        facts = [PictureFacts(t, s, base=found.name, **how) for t, s in zip(texts, seeds, strict=True)]
        _save_all(Path(out), pictures, facts)
    return pictures


def _save_all(folder: Path, pictures: Tensor, facts: Sequence[PictureFacts]) -> None:
    """`00000.png` and so on, going on after the pictures that are there already."""
    taken = [int(file.stem) for file in folder.glob("[0-9]*.png") if file.stem.isdigit()]
    first = max(taken, default=-1) + 1
    for index, (picture, fact) in enumerate(zip(pictures, facts, strict=True)):
        save_picture(folder / f"{first + index:05d}.png", picture, fact)
