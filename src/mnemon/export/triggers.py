"""The words that call a LoRA, as far as the header of its file tells them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trigger:
    """Words, and the field of the header that has them."""

    words: str
    field: str


def trigger_of(header: Mapping[str, str]) -> Trigger | None:
    """The trigger phrase; or else the one tag that the captions of all training photos had, by kohya's counts. None if
    there is neither, or the phrase names an embedding such as our `<rex>`."""
    phrase = header.get("modelspec.trigger_phrase", "").split(",")[0].strip()
    if phrase:
        return None if "<" in phrase else Trigger(phrase, "modelspec.trigger_phrase")
    tag = _common_tag(header)
    return Trigger(tag, "ss_tag_frequency") if tag and "<" not in tag else None


def _common_tag(header: Mapping[str, str]) -> str | None:
    """The only tag there is; or the only one that was counted once for every image, where the header counts those."""
    counts: Counter[str] = Counter()
    for tags in _folders(header, "ss_tag_frequency").values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            counts[tag.strip()] += _count(count)
    folders = _folders(header, "ss_dataset_dirs").values()
    images = sum(_count(folder.get("img_count")) for folder in folders if isinstance(folder, dict))
    common = [tag for tag, count in counts.items() if tag and (len(counts) == 1 or count == images > 0)]
    return common[0] if len(common) == 1 else None


def _count(value: Any) -> int:
    """A count, also one that is written as a text; 0 for anything else."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0


def _folders(header: Mapping[str, str], field: str) -> dict[str, Any]:
    """A field of JSON with an entry for each folder of photos; empty if it is not that."""
    try:
        value = json.loads(header.get(field, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
