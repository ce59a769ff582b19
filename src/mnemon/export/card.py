"""The model card of an export: README.md with a gallery, the triggers, and how to load the files."""

import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from mnemon.export.naming import (
    CLIP,
    COMFY,
    DIFFUSERS,
    FOLDER,
    KOHYA,
    embedding_file,
    embedding_key,
    placeholder_tokens,
    tokenizer_of,
)
from mnemon.export.selection import Selection
from mnemon.names import HUB_ID
from mnemon.sampling import Composed, ImageMetadata, SamplingSettings, fitted, save_image

PICTURES = "pictures"
SAMPLING = SamplingSettings(batch_size=16)


def sample_gallery(selection: Selection, folder: Path, number: int) -> list[tuple[str, str]]:
    """`number` images of every concept, sampled with the selection alone in the base, as PNG files below `folder`.

    Returns:
        (prompt, file relative to `folder`) of each.
    """
    library, base = selection.library, selection.base
    jobs = [
        (name, f"a photo of {selection.prompt_name(name)}", seed) for name in selection.names for seed in range(number)
    ]
    if not jobs:
        return []
    settings = fitted(SAMPLING, base)
    with Composed(base, library.method, selection.learned, selection.deltas) as composed:
        images = composed.sample([prompt for _, prompt, _ in jobs], [seed for *_, seed in jobs], settings)
    gallery = []
    for (name, prompt, seed), image in zip(jobs, images, strict=True):
        file = f"{PICTURES}/{name}-{seed}.png"
        facts = ImageMetadata.of(base, prompt, seed, settings, concepts=tuple(selection.names))
        save_image(folder / file, image, facts)
        gallery.append((prompt, file))
    return gallery


def card_text(
    selection: Selection, files: Sequence[str], gallery: Sequence[tuple[str, str]], notes: Sequence[str]
) -> str:
    """The card in Markdown, with the hub's YAML header."""
    base, method = selection.base, selection.library.method
    lora = ["lora"] if selection.kind in selection.naming.formats else []
    data = ModelCardData(
        base_model=base.name if HUB_ID.fullmatch(base.name) and base.name.count("/") == 1 else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", "mnemon", base.family, *lora],
        widget=[{"text": prompt, "output": {"url": file}} for prompt, file in gallery] or None,
        instance_prompt=", ".join(selection.trigger(name) for name in selection.names),
    )
    concepts = [f"| {_cell(selection.trigger(name))} | {name} |" for name in selection.names]
    parts = [
        f"# {selection.title}",
        f"Learned with mnemon, method `{method.name}`, on the base `{selection.library.public_base}` ({base.family}).",
        "<Gallery />" if gallery else "",
        "\n".join(["## Concepts", "", "| write | concept |", "| --- | --- |", *concepts]),
        "## Use\n\n" + "\n\n".join(_use(selection, files)),
        "## Notes\n\n" + "\n".join(f"- {note}" for note in notes) if notes else "",
        "## Licence\n\nThat of the base applies, and the rights of whoever is in the photos.",
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"))


def _use(selection: Selection, files: Sequence[str]) -> list[str]:
    kind = selection.kind
    if kind == FOLDER:
        load = 'pipeline = DiffusionPipeline.from_pretrained("this folder")'
        return [_python(["from diffusers import DiffusionPipeline", "", load, _call(selection)])]
    weights = [file for file in files if "/" not in file]
    embeddings = [file for file in files if file.startswith("embeddings/")]
    if kind == DIFFUSERS:
        return [_python(_diffusers_lines(selection, weights))]
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


def _diffusers_lines(selection: Selection, weights: Sequence[str]) -> list[str]:
    naming = selection.naming
    lines = [f'pipeline.load_lora_weights("this folder", weight_name="{file}")' for file in weights]
    for name in selection.names:
        file = embedding_file(name)
        if naming.denoiser == "unet" and len(naming.encoders) == 1:
            lines.append(f'pipeline.load_textual_inversion("this folder/{file}")')
        else:
            lines += ["", f'vectors = safetensors.torch.load_file("this folder/{file}")']
            for encoder, vectors in selection.tokens[name].items():
                key = embedding_key(naming, encoder, vectors.shape[1])
                by_pipeline = selection.expands_tokens
                lines += [_inversion(name, encoder, key)] if by_pipeline else _by_hand(name, encoder, key, len(vectors))
    pooled = [encoder for encoder, key in naming.encoders.items() if key in CLIP and len(naming.encoders) > 1]
    if pooled:
        # Published encoders say id 2 and then pool at the largest id, which is a new token's: diffusers' issue 10754.
        lines += ["", "# Otherwise the pooled embedding ends at the new token and ignores the words after it."]
        lines += [f"for encoder in ({', '.join(f'pipeline.{encoder}' for encoder in pooled)},):"]
        lines += ['    getattr(encoder, "text_model", encoder).eos_token_id = pipeline.tokenizer.eos_token_id']
    return [*lines, "", _call(selection)]


def _call(selection: Selection) -> str:
    prompt = f"a photo of {selection.trigger(selection.names[0])}"
    return f"pipeline({json.dumps(prompt, ensure_ascii=False)})"


def _cell(text: str) -> str:
    """Code in a cell of a table, whatever is in the text."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _inversion(name: str, encoder: str, key: str) -> str:
    parts = f"text_encoder=pipeline.{encoder}, tokenizer=pipeline.{tokenizer_of(encoder)}"
    return f'pipeline.load_textual_inversion(vectors["{key}"], token="<{name}>", {parts})'


def _by_hand(name: str, encoder: str, key: str, vectors: int) -> list[str]:
    """For pipelines without textual inversion."""
    tokens = placeholder_tokens(name, vectors)
    reader = f"pipeline.{tokenizer_of(encoder)}"
    return [
        f"tokenizer, encoder = getattr({reader}, 'tokenizer', {reader}), pipeline.{encoder}",
        f"tokenizer.add_tokens([tokenizers.AddedToken(word, lstrip=True, normalized=False) for word in {tokens}])",
        f"ids = tokenizer.convert_tokens_to_ids({tokens})",
        "encoder.resize_token_embeddings(max(len(tokenizer), encoder.config.get_text_config().vocab_size))",
        f'encoder.get_input_embeddings().weight.data[ids] = vectors["{key}"]',
    ]


def _python(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
