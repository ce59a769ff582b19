"""Headers of exported files: `modelspec.*`, kohya's `ss_*` for web interfaces, and our lineage."""

import json
from datetime import UTC, datetime

from diffusers.loaders import TextualInversionLoaderMixin

from mnemon.export.lora import LoraFile
from mnemon.export.naming import DIFFUSERS, KOHYA, Naming, placeholder_tokens
from mnemon.export.selection import Selection

LINEAGE = "mnemon.lineage"
IMPLEMENTATION = "https://github.com/huggingface/diffusers"


def model_spec(selection: Selection, naming: Naming, kind: str, format: str, names: list[str]) -> dict[str, str]:
    """`modelspec.*` 1.0.1 and the lineage, for a file of the concepts `names`; `kind` is "lora", "textual-inversion"
    or empty for a whole checkpoint."""
    base, library = selection.base, selection.library
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{naming.architecture}/{kind}" if kind else naming.architecture,
        "implementation": IMPLEMENTATION,
        "title": "-".join(names),
        "resolution": f"{base.resolution}x{base.resolution}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "description": f"Learned by mnemon with the method '{library.method.name}' on '{base.name}'.",
        "trigger_phrase": ", ".join(trigger(selection, name, format) for name in names),
        "usage_hint": "The trigger works with the embedding file of the same name beside this file.",
    }
    if len(names) > 1:
        spec["merged_from"] = ", ".join(names)
    header = {f"modelspec.{key}": value for key, value in spec.items()}
    return header | {LINEAGE: json.dumps(lineage(selection, names))}


def trigger(selection: Selection, name: str, kind: str) -> str:
    """What to write in a prompt: for diffusers "<rex> dog", or "<rex> <rex>_1 dog" where its pipeline does not expand
    tokens of several vectors; elsewhere "rex dog", since there the name of the embedding file is the trigger."""
    prompt_name = selection.prompt_name(name)
    if kind not in (DIFFUSERS, "folder"):
        return prompt_name.replace(f"<{name}>", name)
    vectors = max(len(rows) for rows in selection.tokens[name].values())
    words = placeholder_tokens(name, 1 if expands(selection) else vectors)
    return prompt_name.replace(f"<{name}>", " ".join(words))


def expands(selection: Selection) -> bool:
    """Whether the family's pipeline loads textual inversions and expands tokens of several vectors."""
    return issubclass(getattr(selection.base, "pipeline_class", object), TextualInversionLoaderMixin)


def lineage(selection: Selection, names: list[str]) -> dict[str, object]:
    """Where concepts come from: base, method, the library's revision, and each concept's commit."""
    library, entries = selection.library, selection.library.concepts()
    return {
        "base": {"family": library.family, "fingerprint": library.fingerprint},
        "method": library.method.name,
        "state": library.revision,
        "concepts": [
            {"name": name, "noun": entry.class_noun, "state": entry.number, "seal": entry.checksum}
            for name, entry in ((name, entries[name]) for name in names)
        ],
    }


def lora_header(selection: Selection, naming: Naming, format: str, file: LoraFile, adapter: str) -> dict[str, str]:
    """The header of a LoRA file."""
    header = model_spec(selection, naming, "lora", format, selection.names)
    if format == DIFFUSERS:
        return header | {"lora_adapter_metadata": adapter}
    return header | (_kohya(selection, naming, file) if format == KOHYA else {})


def _kohya(selection: Selection, naming: Naming, file: LoraFile) -> dict[str, str]:
    """What web interfaces show: network, base, and training words with their counts."""
    rank = str(max(file.ranks.values(), default=0))
    entries = selection.library.concepts()
    words = {trigger(selection, name, KOHYA): max(len(entries[name].photos), 1) for name in selection.names}
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_base_model_version": naming.base_version or "",
        "ss_output_name": selection.title,
        "ss_tag_frequency": json.dumps({"mnemon": words}),
        "ss_training_comment": ", ".join(words),
    }
