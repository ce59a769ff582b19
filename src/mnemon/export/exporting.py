"""From a library to files that other tools read, all or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.export.card import card_text, sample_gallery
from mnemon.export.checkpoint import checkpoint_tensors
from mnemon.export.factors import RankSelection
from mnemon.export.lora import LoraFile, lora_file
from mnemon.export.metadata import lora_header, model_spec
from mnemon.export.naming import (
    CHECKPOINT,
    CLIP,
    COMFY,
    DIFFUSERS,
    EMBEDDING,
    FOLDER,
    KINDS,
    KOHYA,
    LANGUAGE_MODEL,
    embedding_file,
    embedding_key,
    mapped_by_comfyui,
    split_target,
)
from mnemon.export.pipeline_folder import write_pipeline
from mnemon.export.selection import Selection, select
from mnemon.files import new_folder, write_text, writing
from mnemon.library import Library
from mnemon.models import Base
from mnemon.tensor_files import write_safetensors

ROUNDED = 0.01
"""A relative error beyond is more than rounding."""
LORA_NAME = "pytorch_lora_weights"
"""The file name that diffusers and the hub look for."""


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Attributes:
        folder: the export.
        files: relative to `folder`, without the gallery's images.
        concepts: names of the exported concepts.
        lora: contents of the LoRA file, if there is one.
        notes: for users of the files, one sentence each.
    """

    folder: Path
    files: tuple[str, ...]
    concepts: tuple[str, ...]
    lora: LoraFile | None
    notes: tuple[str, ...]


def export(
    library: Library,
    base: Base,
    folder: Path,
    names: Sequence[str] = (),
    *,
    kind: str = DIFFUSERS,
    rank_selection: RankSelection | None = None,
    dtype: torch.dtype = torch.float32,
    images: int = 0,
) -> ExportResult:
    """Write the concepts `names` of a library, by default all, into a new folder with a model card.

    Args:
        kind: a LoRA in the "diffusers", "kohya" or "comfy" format with one embedding file per token; the tokens alone
            ("embedding"); a whole diffusers pipeline ("folder"); a single-file "checkpoint" of the whole model with
            one embedding file per token.
        rank_selection: rank of a LoRA of changes that are not low-rank; exact by default.
        dtype: of the weights written.
        images: number of images of each concept in the card's gallery.

    Raises:
        MnemonError: an unknown kind or concept, a folder that is not empty, or something the files cannot hold.
    """
    if kind not in KINDS:
        raise MnemonError(f"There is no export '{kind}'; there are: {', '.join(KINDS)}.")
    if rank_selection is not None and not rank_selection.exact and kind not in (DIFFUSERS, KOHYA, COMFY):
        raise MnemonError(f"A rank or a share of the energy is for LoRA files; an export as '{kind}' needs neither.")
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise MnemonError(f"{folder} is not an empty folder: choose another place for the export.")
    selection = select(library, base, names, kind)
    with new_folder(folder) as aside:
        lora, notes = _write(selection, aside, rank_selection or RankSelection(), dtype)
        notes = _shared_change(selection) + notes
        files = sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file())
        gallery = sample_gallery(selection, aside, images)
        write_text(aside / "README.md", card_text(selection, files, gallery, notes))
    return ExportResult(folder, ("README.md", *files), tuple(selection.names), lora, tuple(notes))


def _write(
    selection: Selection, folder: Path, rank_selection: RankSelection, dtype: torch.dtype
) -> tuple[LoraFile | None, list[str]]:
    """Write the selection's files; returns the LoRA file, if any, and notes."""
    kind = selection.kind
    if kind == FOLDER:
        write_pipeline(selection, folder, dtype)
        return None, []
    for name in selection.names:
        header = model_spec(selection, "textual-inversion", [name])
        write_safetensors(folder / embedding_file(name), _embedding_tensors(selection, name), header)
    weights = folder / f"{selection.title}.safetensors"
    if kind == CHECKPOINT:
        header = model_spec(selection, "", selection.names) | _prediction(selection.base)
        write_safetensors(weights, checkpoint_tensors(selection, dtype), header)
        return None, ["The embedding files belong to it: a checkpoint has no place for new tokens."]
    if kind == EMBEDDING:
        changed = any(delta.matrix().any() for delta in selection.deltas.values())
        return None, ["The tokens alone: the concepts' changes of the weights are not in these files."] * changed
    file = lora_file(selection, rank_selection, dtype)
    if file is None:
        return None, ["Nothing but tokens: these concepts change no weight."]
    path = folder / f"{LORA_NAME}.safetensors" if kind == DIFFUSERS else weights
    write_safetensors(path, file.tensors, lora_header(selection, file.ranks, file.alpha))
    left = {COMFY: _left_by_comfyui, DIFFUSERS: _left_by_diffusers}.get(kind)
    return file, _notes(file, rank_selection) + (left(selection, file) if left else [])


def _shared_change(selection: Selection) -> list[str]:
    """A word where the change of the weights is also that of concepts that are not selected."""
    others = [one.name for one in selection.composed if one.name not in selection.names]
    if not others or selection.kind == EMBEDDING:
        return []
    return [
        f"The method '{selection.library.method.name}' keeps one change of the weights for all concepts: the one here "
        f"is that of {', '.join(others)} too."
    ]


def _embedding_tensors(selection: Selection, name: str) -> dict[str, Tensor]:
    """A token's vectors (vectors, width) by key.

    With a single CLIP encoder the key is `emb_params`, which A1111, ComfyUI and kohya's scripts read, or in diffusers'
    format the token itself, which `load_textual_inversion` takes as its name. Otherwise each encoder has its own key:
    `clip_l`, `clip_g`, `t5xxl`, or the name of a language model.
    """
    naming = selection.naming
    stored = {encoder: vectors.detach().float().cpu() for encoder, vectors in selection.tokens[name].items()}
    if len(stored) == 1 and naming.denoiser == "unet":
        (vectors,) = stored.values()
        return {f"<{name}>" if selection.kind == DIFFUSERS else "emb_params": vectors}
    return {embedding_key(naming, encoder, vectors.shape[1]): vectors for encoder, vectors in stored.items()}


def _left_by_comfyui(selection: Selection, file: LoraFile) -> list[str]:
    """What ComfyUI does not read of a file in its own format and of the embeddings."""
    naming, notes = selection.naming, []
    left = [target for target in (*file.ranks, *file.whole) if not mapped_by_comfyui(naming, target)]
    if left:
        notes.append(
            f"ComfyUI has no name for {len(left)} of the layers, such as `{left[0]}`, and leaves them out: images "
            "will differ there. A whole pipeline (`--as folder`) has all of them."
        )
    if LANGUAGE_MODEL in naming.encoders.values():
        notes.append(
            "ComfyUI reads embeddings of CLIP and T5; those of this family's language model only in versions later "
            "than 0.10.0, if at all: where it does not, `embedding:…` is an unknown word there."
        )
    return notes


def _left_by_diffusers(selection: Selection, file: LoraFile) -> list[str]:
    """diffusers loads a LoRA into the denoiser and into CLIP, and passes over the rest without a word."""
    naming = selection.naming
    texts = {encoder for encoder, key in naming.encoders.items() if key not in CLIP}
    left = [target for target in file.ranks if split_target(naming, target)[0] in texts]
    if not left:
        return []
    return [
        f"diffusers loads no LoRA into this family's {', '.join(sorted(texts))}: {len(left)} of the layers, such as "
        f"`{left[0]}`, stay as they are there, and images will differ. A whole pipeline (`--as folder`) has them."
    ]


def _notes(file: LoraFile, rank_selection: RankSelection) -> list[str]:
    notes = []
    if file.whole:
        notes.append(
            f"{len(file.whole)} layers are stored whole, under `.diff`: ComfyUI reads that, and A1111's kin; kohya's "
            "scripts pass over it. Give a rank or a share of the energy for these; diffusers has a format of its own."
        )
    if rank_selection.exact and file.error > ROUNDED:
        notes.append(
            f"16 bits hold these changes with a relative error of {file.error:.2e} (Frobenius norm) only, since they "
            "are small: export without --half."
        )
    if not rank_selection.exact:
        notes.append(
            f"Truncated SVD: relative error {file.error:.2e} (Frobenius norm); largest in `{file.worst[0]}`, "
            f"{file.worst[1]:.2e}."
        )
    return notes


def _prediction(base: Base) -> dict[str, str]:
    kind = base.schedule.sampling_scheduler().config.prediction_type
    return {"modelspec.prediction_type": "v" if kind == "v_prediction" else str(kind)}
