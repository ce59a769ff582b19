"""Headers of exported files: `modelspec.*`, kohya's `ss_*` for web interfaces, and our lineage."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from mnemon.export.naming import CLIP, DIFFUSERS, KOHYA, Naming, split_target
from mnemon.export.selection import Selection

LINEAGE = "mnemon.lineage"
CLIP_LEVEL = r"(text_model\.)?"
IMPLEMENTATION = "https://github.com/huggingface/diffusers"


def model_spec(selection: Selection, adapter: str, names: list[str]) -> dict[str, str]:
    """`modelspec.*` 1.0.1 and the lineage, for a file of the concepts `names`; `adapter` is "lora",
    "textual-inversion" or empty for a whole checkpoint."""
    base, library = selection.base, selection.library
    architecture = selection.naming.architecture
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture}/{adapter}" if adapter else architecture,
        "implementation": IMPLEMENTATION,
        "title": "-".join(names),
        "resolution": f"{base.resolution}x{base.resolution}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "description": f"Learned by mnemon with the method '{library.method.name}' on '{library.public_base}'.",
        "trigger_phrase": ", ".join(selection.trigger(name) for name in names),
        "usage_hint": "The trigger works with the embedding file of the same name beside this file.",
    }
    if len(names) > 1:
        spec["merged_from"] = ", ".join(names)
    header = {f"modelspec.{key}": value for key, value in spec.items()}
    return header | {LINEAGE: json.dumps(lineage(selection, names))}


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


def lora_header(selection: Selection, ranks: Mapping[str, int], alpha: float | None) -> dict[str, str]:
    """The header of a LoRA file, with the rank of each target module that is stored as factors, and their alpha."""
    header = model_spec(selection, "lora", selection.names)
    if selection.kind == DIFFUSERS:
        return header | {"lora_adapter_metadata": _peft_config(selection.naming, ranks)}
    return header | (_kohya(selection, ranks, alpha) if selection.kind == KOHYA else {})


def _peft_config(naming: Naming, ranks: Mapping[str, int]) -> str:
    """The `LoraConfig` of each part as diffusers writes it into a file's header; alpha is the rank."""
    parts: dict[str, dict[str, int]] = {}
    for target, rank in ranks.items():
        part, path = split_target(naming, target)
        parts.setdefault(part, {})[path] = rank
    facts: dict[str, object] = {}
    for part, by_path in parts.items():
        most = max(by_path.values())
        other = {_pattern(naming, part, path): rank for path, rank in by_path.items() if rank != most}
        config = {"r": most, "lora_alpha": most, "target_modules": list(by_path), "rank_pattern": other}
        facts |= {f"{part}.{key}": value for key, value in {**config, "alpha_pattern": other}.items()}
    return json.dumps(facts, indent=2, sort_keys=True)


def _pattern(naming: Naming, part: str, path: str) -> str:
    """A layer in `rank_pattern`, anchored: PEFT would take `proj_out` for every layer whose path ends so. CLIP's layers
    lie below `text_model` in older versions of transformers."""
    return f"^{CLIP_LEVEL}{path}" if naming.encoders.get(part) in CLIP else f"^{path}"


def _kohya(selection: Selection, ranks: Mapping[str, int], alpha: float | None) -> dict[str, str]:
    """What web interfaces show: network, base, and training words with their counts."""
    entries = selection.library.concepts()
    words = {selection.trigger(name): max(len(entries[name].photos), 1) for name in selection.names}
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(max(ranks.values(), default=0)),
        "ss_network_alpha": str(alpha or 0.0),
        "ss_base_model_version": selection.naming.base_version or "",
        "ss_output_name": selection.title,
        "ss_tag_frequency": json.dumps({"mnemon": words}),
        "ss_training_comment": ", ".join(words),
    }
