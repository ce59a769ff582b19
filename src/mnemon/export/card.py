"""The model card of an export: README.md with a gallery, the triggers, and how to load the files."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from mnemon.export.embeddings import embedding_file
from mnemon.export.metadata import trigger
from mnemon.export.naming import COMFY, DIFFUSERS, KOHYA, Naming
from mnemon.export.selection import Selection
from mnemon.models.loading import HUB_ID
from mnemon.sampling import Composed, PictureFacts, save_picture

PICTURES = "pictures"
GUIDANCE, STEPS = 4.0, 30
END_MARK = "pipeline.text_encoder_2.text_model.eos_token_id = pipeline.tokenizer_2.eos_token_id"


def draw_gallery(selection: Selection, folder: Path, number: int) -> list[tuple[str, str]]:
    """`number` pictures of every concept, drawn with the selection alone in the base, as PNG files below `folder`.

    Returns:
        (prompt, file relative to `folder`) of each.
    """
    library, base = selection.library, selection.base
    wanted = [
        (name, f"a photo of {selection.called(name)}", seed) for name in selection.names for seed in range(number)
    ]
    if not wanted:
        return []
    with Composed(base, library.method, selection.learned, selection.deltas) as composed:
        pictures = composed.draw(
            [prompt for _, prompt, _ in wanted], seeds=[seed for *_, seed in wanted], guidance=GUIDANCE, steps=STEPS
        )
    shown = []
    for (name, prompt, seed), picture in zip(wanted, pictures, strict=True):
        file = f"{PICTURES}/{name}-{seed}.png"
        facts = PictureFacts(prompt, seed, GUIDANCE, STEPS, base.name, concepts=tuple(selection.names))
        save_picture(folder / file, picture, facts)
        shown.append((prompt, file))
    return shown


def card_text(
    selection: Selection,
    naming: Naming,
    kind: str,
    files: Sequence[str],
    gallery: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> str:
    """The card in Markdown, with the hub's YAML header."""
    base, method = selection.base, selection.library.method
    data = ModelCardData(
        base_model=base.name if HUB_ID.fullmatch(base.name) and base.name.count("/") == 1 else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", "mnemon", base.family, *(["lora"] if kind in naming.dialects else [])],
        widget=[{"text": prompt, "output": {"url": file}} for prompt, file in gallery] or None,
        instance_prompt=", ".join(trigger(selection, name, kind) for name in selection.names),
    )
    concepts = [f"| `{trigger(selection, name, kind)}` | {name} |" for name in selection.names]
    parts = [
        f"# {selection.title}",
        f"Learned with mnemon, method `{method.name}`, on the base `{base.name}` ({base.family}).",
        "<Gallery />" if gallery else "",
        "\n".join(["## Concepts", "", "| write | concept |", "| --- | --- |", *concepts]),
        "## Use\n\n" + "\n\n".join(_use(selection, naming, kind, files)),
        "## Notes\n\n" + "\n".join(f"- {note}" for note in notes) if notes else "",
        "## Licence\n\nThat of the base applies, and the rights of whoever is in the photos.",
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"))


def _use(selection: Selection, naming: Naming, kind: str, files: Sequence[str]) -> list[str]:
    if kind == "folder":
        prompt = f"a photo of {selection.called(selection.names[0])}"
        load = 'pipeline = DiffusionPipeline.from_pretrained("this folder")'
        return [_python(["from diffusers import DiffusionPipeline", "", load, f'pipeline("{prompt}")'])]
    weights = [file for file in files if "/" not in file]
    embeddings = [file for file in files if file.startswith("embeddings/")]
    if kind == DIFFUSERS:
        return [_python(_diffusers_lines(selection, naming, weights))]
    places = {KOHYA: "`models/loras` (ComfyUI) or `models/Lora` (A1111 and its kin)", COMFY: "`models/loras` (ComfyUI)"}
    place = places.get(kind, "`models/checkpoints` (ComfyUI) or `models/Stable-diffusion` (A1111 and its kin)")
    lines = [f"Put `{file}` into {place}." for file in weights]
    if embeddings:
        lines.append(
            f"Put {', '.join(f'`{file}`' for file in embeddings)} into `models/embeddings` (ComfyUI: write "
            "`embedding:NAME` for the name) or `embeddings` (A1111: write the name). The files' names are the "
            "triggers; without them the concepts are not known."
        )
    return lines


def _diffusers_lines(selection: Selection, naming: Naming, weights: Sequence[str]) -> list[str]:
    lines = [f'pipeline.load_lora_weights("this folder", weight_name="{file}")' for file in weights]
    for name in selection.names:
        file = embedding_file(name)
        if len(naming.encoders) == 1:
            lines.append(f'pipeline.load_textual_inversion("this folder/{file}")')
            continue
        lines += ["", f'vectors = safetensors.torch.load_file("this folder/{file}")']
        for encoder, key in naming.encoders.items():
            parts = (
                f"text_encoder=pipeline.{encoder}, tokenizer=pipeline.{encoder.replace('text_encoder', 'tokenizer')}"
            )
            lines.append(f'pipeline.load_textual_inversion(vectors["{key}"], token="<{name}>", {parts})')
    if "clip_g" in naming.encoders.values():
        # Published encoders say id 2 and then pool at the largest id, which is a new token's: diffusers' issue 10754.
        lines += ["", "# Or the pooled text ends at the new token, and the words after it are not heard.", END_MARK]
    return [*lines, "", f'pipeline("a photo of {selection.called(selection.names[0])}")']


def _python(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
