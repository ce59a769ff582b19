"""Several concepts from one list file, as Custom Diffusion and the diffusers examples write it (`--concepts_list`)."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mnemon.data.concept import Concept
from mnemon.data.found import OnPhoto
from mnemon.data.kohya import words_of
from mnemon.data.layouts import existing_folder, folder_concept, name_of_folder, said
from mnemon.data.reading import MAX_PIXELS, read_text
from mnemon.errors import MnemonError
from mnemon.names import NAME, NAME_RULE

FIELDS = ("instance_prompt", "class_prompt", "instance_data_dir", "class_data_dir")

_TOKEN = re.compile(r"<([^<>]+)>")
_LEAD_IN = re.compile(r"^(?:(?:an? |the )?(?:photo|picture|image) of )?(?:an? |the )?", re.IGNORECASE)


def concepts_from_list(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, on_photo: OnPhoto | None = None
) -> list[Concept]:
    """The concepts of a JSON list of `{instance_prompt, class_prompt, instance_data_dir, class_data_dir}`, in order.

    Only `instance_data_dir`, the folder of photos, is required; it is relative to the list file's folder. The concept's
    name is the `<token>` in `instance_prompt`, or else the folder's name. A prompt with a token is also the caption of
    every photo without its own. The class noun is `class_prompt` without "a photo of a". `class_data_dir` is accepted,
    but class images are not read, which the concept's report says.

    Raises:
        MnemonError: the file is missing or malformed (naming the entry), two entries have one name, or an entry's
            folder cannot be read.
    """
    file = Path(path).expanduser()
    named: dict[str, int] = {}
    concepts = []
    for number, entry in enumerate(_entries(file), start=1):
        concept = _concept(entry, file.parent, f"entry {number} of '{file}'", max_pixels, on_photo)
        if concept.name in named:
            raise MnemonError(
                f"Entries {named[concept.name]} and {number} of '{file}' are both named '{concept.name}': "
                "give each instance_prompt a token of its own, such as <rex> and <rex2>."
            )
        named[concept.name] = number
        concepts.append(concept)
    return [said(concept) for concept in concepts]


def _entries(file: Path) -> list[Any]:
    try:
        entries = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise MnemonError(
            f"The list file '{file}' is no JSON (line {error.lineno}: {error.msg}): mend that line."
        ) from error
    if not isinstance(entries, list) or not entries:
        raise MnemonError(f"The list file '{file}' must be a JSON list with one entry per concept: [{{...}}, {{...}}].")
    return entries


def _concept(entry: Any, home: Path, where: str, max_pixels: int, on_photo: OnPhoto | None) -> Concept:
    fields = _checked(entry, where)
    folder = existing_folder(home / Path(fields["instance_data_dir"]).expanduser())
    prompt = fields.get("instance_prompt", "")
    name = _name(prompt, where)
    if name is None and words_of(folder) is None:
        name = name_of_folder(folder)
    class_noun = _LEAD_IN.sub("", fields.get("class_prompt", "").strip()) or None
    concept = folder_concept(folder, name, class_noun, max_pixels, on_photo)
    assert concept.report is not None
    if fields.get("class_data_dir"):
        concept.report.note(f"{where}: class_data_dir is not read; --num-class-images generates images of the class.")
    if prompt and concept.token not in prompt:
        concept.report.note(f"{where}: instance_prompt has no {concept.token} and is not used.")
    return _captioned(concept, prompt, where) if concept.token in prompt else concept


def _checked(entry: Any, where: str) -> dict[str, str]:
    if not isinstance(entry, dict) or not entry.get("instance_data_dir"):
        raise MnemonError(f"{_start(where)} has no instance_data_dir: give the folder that holds the concept's photos.")
    for key, value in entry.items():
        if key not in FIELDS:
            raise MnemonError(f"{_start(where)} has an unknown field '{key}': the fields are {', '.join(FIELDS)}.")
        if not isinstance(value, str | None):
            raise MnemonError(f"The {key} in {where} is no text: put it in quotation marks.")
    return {key: value for key, value in entry.items() if value is not None}


def _name(prompt: str, where: str) -> str | None:
    tokens = _TOKEN.findall(prompt)
    if len(tokens) > 1:
        raise MnemonError(f"The instance_prompt in {where} has {len(tokens)} tokens: keep the one of this concept.")
    if tokens and not NAME.fullmatch(tokens[0]):
        raise MnemonError(f"The token <{tokens[0]}> in {where} cannot name a concept: {NAME_RULE}")
    return tokens[0] if tokens else None


def _captioned(concept: Concept, prompt: str, where: str) -> Concept:
    caption = partial(replace, caption=prompt, caption_source=f"the instance_prompt of {where}")
    return replace(concept, photos=tuple(photo if photo.caption else caption(photo) for photo in concept.photos))


def _start(where: str) -> str:
    return where[0].upper() + where[1:]
