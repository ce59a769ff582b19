"""Sequences from folders: a person's own concepts, and the public sets as they are published.

Of six or more photos of a concept the last third is held out and scored against; of fewer all are trained on, and the
scores are against training photos, which the member says (`held_out`).
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from mnemon.benchmark.sequences import ConceptSequence, ConceptSpec, Photos, shipped_sequence, shipped_sequences
from mnemon.data import concept_from_folder
from mnemon.data.concept import Concept, Photo
from mnemon.data.layouts import name_of_folder
from mnemon.data.listing import concepts_from_list
from mnemon.data.reading import read_text
from mnemon.data.report import few_of
from mnemon.errors import MnemonError
from mnemon.evaluation.prompts import Kind

ENOUGH = 6  # photos, to hold some out
CIFC: tuple[tuple[str, str, Kind, str], ...] = (
    ("dog", "dog", "thing", "pet"),
    ("duck_toy", "duck toy", "thing", "plushy"),
    ("cat", "cat", "thing", "pet"),
    ("backpack", "backpack", "thing", "plushy"),
    ("teddybear", "teddy bear", "thing", "plushy"),
    ("painting", "painting", "style", "style"),
    ("dog2", "dog", "thing", "pet"),
    ("drawing", "drawing", "style", "style"),
    ("cat2", "cat", "thing", "pet"),
    ("ink_painting", "ink painting", "style", "style"),
)
"""Folder, class word, kind and prompt set of the CIFC concepts in their order (CIDM, arXiv 2410.17594, repository)."""
log = logging.getLogger("mnemon")
_LIVE = ("cat", "dog")  # DreamBooth's classes with the prompts for live subjects
_MARKS = re.compile(r"<TOK>|\{0\}|\{\}")


def open_sequence(what: str, hold_out: bool = True) -> ConceptSequence:
    """The shipped sequence of this name, or the concepts in a folder or list file at this path. Without `hold_out` each
    is trained on all its photos, and scored against the same.

    Raises:
        MnemonError: there is neither, or the folder holds no concepts.
    """
    sequence = _opened(what)
    if hold_out:
        return sequence
    concepts = [replace(one, photos=cache(partial(_all_photos, one))) for one in sequence.concepts]
    return replace(sequence, concepts=tuple(concepts))


def _opened(what: str) -> ConceptSequence:
    if what in shipped_sequences():
        return shipped_sequence(what)
    if Path(what).expanduser().exists():
        return sequence_at(Path(what).expanduser())
    known = ", ".join(shipped_sequences())
    raise MnemonError(f"There is no sequence '{what}': give one of {known}, or the path of a folder of concepts.")


def sequence_at(path: Path) -> ConceptSequence:
    """The concepts at `path`, whatever their layout:

    - CIFC: a folder with `images/`, `caption/` and `evaluation_prompts/`;
    - DreamBooth: a folder with `prompts_and_classes.txt` and a folder for each subject;
    - CustomConcept101: a folder with `dataset.json`, or that file; concepts without photos are passed over;
    - a JSON list as `mnemon learn` reads it;
    - one's own: a folder with a folder of photos for each concept, in the order of their names. A file `nouns.json`
      beside them, {"rex": "dog", "ink": null}, gives the class nouns; null is a style.

    Raises:
        MnemonError: there are no concepts, or one cannot be read.
    """
    for folder in (path, path / "datasets", path / "dataset"):
        if (folder / "images").is_dir() and (folder / "evaluation_prompts").is_dir():
            return ConceptSequence("cifc", tuple(_cifc(folder)))
        if (folder / "prompts_and_classes.txt").is_file():
            return ConceptSequence("dreambooth", tuple(_dreambooth(folder)))
        if (folder / "dataset.json").is_file():
            return ConceptSequence("customconcept101", tuple(_custom101(folder / "dataset.json")))
    if path.is_file() and path.name == "dataset.json":
        return ConceptSequence("customconcept101", tuple(_custom101(path)))
    if path.is_file():
        listed = [_listed(concept) for concept in concepts_from_list(path)]
        return ConceptSequence(path.stem, tuple(listed))
    return ConceptSequence(path.resolve().name, tuple(_own(path)))


def split(concept: Concept) -> Photos:
    """The last third to score against, where there are enough photos; else all for both. A file that is trained on is
    not held out as well."""
    count = len(concept.photos)
    trained = concept.photos[: count - count // 3 if count >= ENOUGH else count]
    known = {photo.sha256 for photo in trained if photo.sha256}
    held_out = tuple(photo for photo in concept.photos[len(trained) :] if photo.sha256 not in known)
    if not held_out:
        return Photos(concept, concept, held_out=False)
    return Photos(replace(concept, photos=trained), replace(concept, photos=held_out), True)


def _all_photos(one: ConceptSpec) -> Photos:
    trained, references, held_out = one.photos()
    every = replace(trained, photos=trained.photos + references.photos) if held_out else trained
    return Photos(every, every, held_out=False)


def _own(path: Path) -> Iterable[ConceptSpec]:
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise MnemonError(f"The folder '{path}' holds no concepts: put a folder of photos for each into it.")
    nouns = _nouns(path / "nouns.json")
    for folder in folders:
        name = name_of_folder(folder)
        class_noun = nouns.get(name)
        yield _member(folder, name, class_noun, "style" if name in nouns and class_noun is None else "thing")


def _nouns(file: Path) -> Mapping[str, str | None]:
    if not file.is_file():
        return {}
    try:
        nouns = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise MnemonError(f"'{file}' is no JSON (line {error.lineno}: {error.msg}): mend that line.") from error
    if not isinstance(nouns, dict) or not all(isinstance(class_noun, str | None) for class_noun in nouns.values()):
        raise MnemonError(f'\'{file}\' must give a noun, or null for a style, to each concept: {{"rex": "dog"}}.')
    return nouns


def _cifc(folder: Path) -> Iterable[ConceptSpec]:
    for name, class_noun, kind, prompts in CIFC:
        templates = _templates(read_text(folder / "evaluation_prompts" / f"test_{prompts}.txt").splitlines())
        captions = folder / "caption" / name
        yield _member(folder / "images" / name, name, class_noun, kind, templates, captions)


def _dreambooth(folder: Path) -> Iterable[ConceptSpec]:
    text = read_text(folder / "prompts_and_classes.txt")
    classes = re.findall(r"^(\w+),(.+)$", text.split("Prompts")[0], re.MULTILINE)
    things, live = ([], [])  # type: tuple[list[str], list[str]]
    for place, part in enumerate(text.split("prompt_list = [")[1:3]):
        (things, live)[place].extend(re.findall(r"^'(.+)'\.format", part, re.MULTILINE))
    for name, class_noun in classes:
        if name != "subject_name":
            own = live if class_noun in _LIVE else things
            yield _member(
                folder / name, name, class_noun.strip(), "thing", _templates(t.replace("{0} {1}", "{}") for t in own)
            )


def _custom101(file: Path) -> Iterable[ConceptSpec]:
    """Tokens in the file's prompts are all alike, so concepts are named after their folders."""
    missing = []
    for entry in json.loads(read_text(file)):
        folder, prompts = file.parent / entry["instance_data_dir"], file.parent / entry.get("prompt_filename", "")
        if folder.is_dir():
            own = _templates(read_text(prompts).splitlines()) if prompts.is_file() else ()
            yield _member(folder, _safe(folder.name), entry.get("class_prompt"), "thing", own)
        else:
            missing.append(folder.name)
    if missing:
        log.warning("%s: concepts without a folder of photos are passed over: %s.", file, few_of(missing))


def _listed(concept: Concept) -> ConceptSpec:
    return ConceptSpec(
        concept.name, concept.class_noun, "thing" if concept.class_noun else "style", partial(split, concept)
    )


def _member(
    folder: Path,
    name: str,
    class_noun: str | None,
    kind: Kind,
    templates: tuple[str, ...] = (),
    captions: Path | None = None,
) -> ConceptSpec:
    return ConceptSpec(name, class_noun, kind, cache(partial(_read, folder, name, class_noun, captions)), templates)


def _read(folder: Path, name: str, class_noun: str | None, captions: Path | None) -> Photos:
    concept = concept_from_folder(folder, name, class_noun)
    if captions is not None and class_noun:
        photos = tuple(_captioned(photo, captions, f"<{name}>", class_noun) for photo in concept.photos)
        left = [Path(old.source).name for old, new in zip(concept.photos, photos, strict=True) if not new.caption]
        if left:
            log.warning("%s: no caption says '%s' for: %s.", captions, class_noun, few_of(left))
        concept = replace(concept, photos=photos)
    return split(concept)


def _captioned(photo: Photo, captions: Path, token: str, class_noun: str) -> Photo:
    """CIFC's captions name the concept by its class word; one that does not is left out."""
    file = captions / f"{Path(photo.source).stem}.txt"
    text = " ".join(read_text(file).split()) if file.is_file() else ""
    return replace(photo, caption=text.replace(class_noun, f"{token} {class_noun}", 1)) if class_noun in text else photo


def templates_from(file: Path) -> tuple[str, ...]:
    """The evaluation prompts in a text file, one a line, with `{}` in the place of `<TOK>` or `{0}` for the concept.

    Raises:
        MnemonError: the file cannot be read, or is empty.
    """
    if not file.is_file():
        raise MnemonError(f"There is no file of evaluation prompts at {file}.")
    templates = tuple(_MARKS.sub("{}", line.strip()) for line in read_text(file).splitlines() if line.strip())
    if not templates:
        raise MnemonError(f"{file} holds no evaluation prompt: write one a line, with {{}} where the concept stands.")
    return templates


def _templates(lines: Iterable[str]) -> tuple[str, ...]:
    """The lines that name the concept, with `{}` in its place."""
    named: Sequence[str] = [line.strip() for line in lines if _MARKS.search(line)]
    return tuple(_MARKS.sub("{}", line) for line in named)


def _safe(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
