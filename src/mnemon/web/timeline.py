"""Every revision of the library as a row of the same images."""

from collections.abc import Iterator
from pathlib import Path

from mnemon import api
from mnemon.errors import MnemonError
from mnemon.files import write_png
from mnemon.library import Entry, Library
from mnemon.models import Base
from mnemon.sampling import to_image
from mnemon.web.workspace import Workspace

PROMPT, SEED, STEPS = "a photo of {}", 0, 20


def revisions(workspace: Workspace) -> list[Entry]:
    """The commits, the oldest first."""
    opened = workspace.opened()
    return opened.history() if opened else []


def image_of(workspace: Workspace, entry: Entry, name: str) -> Path:
    """Where the image of a concept at a revision is kept; by the history's checksum, so that it is of this library."""
    return workspace.folder / "timeline" / f"{entry.number:06d}-{entry.checksum[:16]}-{name}.png"


def missing(workspace: Workspace) -> list[int]:
    """Revisions with a concept whose image is not there yet."""
    return [entry.number for entry in revisions(workspace) if _missing_of(workspace, entry)]


def draw_missing(workspace: Workspace) -> Iterator[int]:
    """Draw what is missing; yields each revision that is whole by then.

    Raises:
        MnemonError: the model is busy.
    """
    with workspace.model("drawing the timeline") as base:
        for entry in revisions(workspace):
            if names := _missing_of(workspace, entry):
                _draw(workspace, base, entry, names)
                yield entry.number


def _missing_of(workspace: Workspace, entry: Entry) -> list[str]:
    names = Library.open(workspace.library, entry.number).names()
    return [name for name in names if not image_of(workspace, entry, name).exists()]


def _draw(workspace: Workspace, base: Base, entry: Entry, names: list[str]) -> None:
    opened = Library.open(workspace.library, entry.number)
    called = workspace.called_in(opened)
    prompts = [PROMPT.format(called[name]) for name in names]
    images = api.generate(opened, prompts, base=base, seed=SEED, num_inference_steps=STEPS)
    for name, image in zip(names, images, strict=True):
        write_png(image_of(workspace, entry, name), to_image(image))


def comparison(workspace: Workspace, before: int, after: int) -> list[str]:
    """What lies between two revisions, a sentence each.

    Raises:
        MnemonError: there is no such revision.
    """
    old, new = Library.open(workspace.library, before), Library.open(workspace.library, after)
    added = [name for name in new.names() if name not in old.names()]
    gone = [name for name in old.names() if name not in new.names()]
    lines = [f"Revision {after} has {', '.join(f'<{name}>' for name in added)} more."] if added else []
    lines += [f"It lacks {', '.join(f'<{name}>' for name in gone)}."] if gone else []
    then, now = (one.rows().get(one.revision, {"concepts": {}})["concepts"] for one in (old, new))
    for name in old.names():
        first, last = (row.get(name, {}).get("identity_alignment") for row in (then, now))
        if first is not None and last is not None:
            lines.append(f"<{name}>: identity {first:.3f}, then {last:.3f} ({last - first:+.3f}).")
    return lines or ["Nothing differs."]


def remove(workspace: Workspace, name: str) -> str:
    """Take a concept out of the newest revision; what was done, in words.

    Raises:
        MnemonError: there is no such concept, or the method cannot.
    """
    opened = workspace.needed()
    if workspace.doing:
        raise MnemonError(f"The model is busy {workspace.doing}: wait until that has finished.")
    revision = opened.remove(name)
    return f"<{name}> is out; the library is at revision {revision}. Revision {revision - 1} still has it."
