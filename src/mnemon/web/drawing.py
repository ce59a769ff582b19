"""Images one by one, and the gallery of what was drawn."""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mnemon import api
from mnemon.errors import MnemonError
from mnemon.sampling import ImageMetadata, read_metadata
from mnemon.sampling.regions import region_from_text
from mnemon.web.workspace import Workspace

MOST_IMAGES, MOST_STEPS, MOST_TEXT = 64, 1000, 2000
SHOWN = 500
"""Images in the gallery, the newest first."""
REGIONS = 4


@dataclass(frozen=True)
class Wish:
    """What is to be drawn, as the page has it.

    Attributes:
        regions: `box:prompt` each, as the command takes them.
        at: a past revision; None for the newest.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    number: int = 4
    steps: int = 30
    guidance_scale: float = 4.0
    regions: tuple[str, ...] = ()
    per_region: bool = False
    scheduler: str | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        for what, value, most in (("images", self.number, MOST_IMAGES), ("steps", self.steps, MOST_STEPS)):
            if not 1 <= value <= most:
                raise MnemonError(f"{value} {what} cannot be drawn at once: choose 1 to {most}.")
        if not 0 <= self.seed < 2**53:
            raise MnemonError(f"The seed {self.seed} cannot be used: choose a whole number from 0 on.")
        if len(self.prompt) > MOST_TEXT or len(self.negative_prompt) > MOST_TEXT:
            raise MnemonError(f"The prompt has more than {MOST_TEXT} characters: a model reads some hundred.")


def draw(workspace: Workspace, wish: Wish) -> Iterator[Path]:
    """The image files, each as soon as it is there. Whoever stops asking stops the drawing after the next image.

    Raises:
        MnemonError: as `api.generate`, or the model is busy.
    """
    files: queue.Queue[Path | None] = queue.Queue()
    ended, failed = threading.Event(), []

    def told(file: Path) -> None:
        files.put(file)
        if ended.is_set():
            raise _Ended

    def work() -> None:
        try:
            _generate(workspace, wish, told)
        except _Ended:
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            files.put(None)

    thread = threading.Thread(target=work, name="draw", daemon=True)
    thread.start()
    try:
        while (file := files.get()) is not None:
            yield file
    finally:
        ended.set()
    thread.join()
    if failed:
        raise failed[0]


class _Ended(Exception):
    """Nobody asks for more."""


def _generate(workspace: Workspace, wish: Wish, told: Any) -> None:
    with workspace.model("drawing") as base:
        api.generate(
            workspace.opened(wish.at),
            wish.prompt,
            base=base,
            negative_prompt=wish.negative_prompt,
            seed=wish.seed,
            num_images_per_prompt=wish.number,
            guidance_scale=wish.guidance_scale,
            num_inference_steps=wish.steps,
            batch_size=1,
            regions=[region_from_text(text) for text in wish.regions],
            per_region=wish.per_region and bool(wish.regions),
            out=workspace.images,
            scheduler=wish.scheduler,
            on_file=told,
        )


def region_texts(boxes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """`box:prompt` of each box that was drawn on the page: {"box": [left, top, right, bottom], "prompt": ...}.

    Raises:
        MnemonError: more than `REGIONS`, one without a prompt, or a corner outside the image.
    """
    if len(boxes) > REGIONS:
        raise MnemonError(f"{len(boxes)} regions are too many: draw up to {REGIONS}.")
    texts = []
    for number, one in enumerate(boxes, start=1):
        prompt = str(one.get("prompt", "")).strip()
        if not prompt:
            raise MnemonError(f"Region {number} has no concept yet: choose one, or take the region away.")
        try:
            corners = [min(max(float(corner), 0.0), 1.0) for corner in one["box"]]
        except (KeyError, TypeError, ValueError):
            raise MnemonError(f"Region {number} is no box: draw it again.") from None
        text = f"{','.join(f'{corner:.4g}' for corner in corners)}:{prompt}"
        region_from_text(text)
        texts.append(text)
    return tuple(texts)


def gallery(workspace: Workspace) -> list[tuple[Path, str]]:
    """The images, the newest first, and what each shows."""
    files = sorted(workspace.images.glob("[0-9]*.png"), reverse=True)[:SHOWN]
    return [(file, _caption(file, file.stat().st_mtime_ns)) for file in files]


@lru_cache(maxsize=2 * SHOWN)
def _caption(file: Path, changed: int) -> str:
    """A line of the image's settings, read once for as long as the file is not `changed`."""
    try:
        metadata = read_metadata(file)
    except MnemonError:
        return file.name
    return f"{metadata.prompt} · seed {metadata.seed}"


def wish_of(metadata: ImageMetadata) -> Wish:
    """What would draw this image again."""
    return Wish(
        metadata.prompt,
        metadata.negative_prompt,
        metadata.seed,
        1,
        metadata.num_inference_steps,
        metadata.guidance_scale,
        tuple(text for text in metadata.regions if not text.startswith("mask:")),
        metadata.per_region,
    )
