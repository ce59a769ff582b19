"""To other tools and from them: exports as one archive, adapters that were dropped."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mnemon import api
from mnemon.errors import MnemonError
from mnemon.export import KINDS
from mnemon.names import safe_name
from mnemon.web.workspace import Workspace

FORMS = {
    "kohya": "ComfyUI, A1111, Forge: LoRA and embeddings as kohya's trainers write them",
    "comfy": "ComfyUI: LoRA and embeddings with its names of layers",
    "diffusers": "diffusers: LoRA and embeddings for Python",
    "embedding": "the embeddings alone",
    "folder": "a whole diffusers folder, the concepts merged into its weights",
    "checkpoint": "one checkpoint file of the whole model",
}


def forms_of(family: str) -> list[str]:
    """The kinds of export for a family, the one that most people want first."""
    first = "kohya" if family in ("sd", "sd2", "sdxl") else "comfy"
    return [first, *(kind for kind in FORMS if kind != first)]


def take_along(workspace: Workspace, names: Sequence[str], kind: str) -> tuple[Path, str]:
    """Write concepts, all without `names`, into an archive; returns it and what is in it, in words.

    Raises:
        MnemonError: an unknown concept or kind, or something that the files cannot hold.
    """
    if kind not in KINDS:
        raise MnemonError(f"There is no export as '{kind}': choose from {', '.join(KINDS)}.")
    opened = workspace.needed()
    chosen = [name for name in opened.names() if name in names] if names else opened.names()
    if unknown := [name for name in names if name not in chosen]:
        raise MnemonError(f"The library has no concept '{unknown[0]}'; it has: {', '.join(opened.names())}.")
    title = f"{'-'.join(chosen)[:60]}-{kind}-{opened.revision}"
    folder = workspace.folder / "exports" / title
    with workspace.model("exporting") as base:
        shutil.rmtree(folder, ignore_errors=True)
        made = api.export_concepts(opened, folder, chosen, kind=kind, base=base)
    archive = Path(shutil.make_archive(str(folder), "zip", folder))
    shutil.rmtree(folder)
    notes = [f"{', '.join(f'<{name}>' for name in made.concepts)}: {len(made.files)} files.", *made.notes]
    return archive, "\n\n".join(notes)


def bring_in(
    workspace: Workspace, files: Sequence[Path], name: str, class_noun: str, trigger: str, partial: bool = False
) -> str:
    """Import an adapter that was dropped; what came of it, in words.

    Raises:
        MnemonError: as `api.import_concept`, or no file.
    """
    if not files:
        raise MnemonError("Drop a file first: a LoRA, an embedding, or one of each (safetensors).")
    called = name.strip() or safe_name(files[0].stem)
    with workspace.model("importing") as base:
        made = api.import_concept(
            workspace.library,
            files,
            called,
            class_noun.strip() or None,
            trigger=trigger.strip() or None,
            partial=partial,
            base=base,
            method=None if workspace.opened() else workspace.method,
            scored=False,
        )
    said = (
        f"<{made.concept}>: {made.layers} layers, {made.vectors} vectors; the library is at revision {made.revision}."
    )
    return "\n\n".join([said, *made.notes])
