"""Images of classes from a folder, in the layouts that data sets come in.

| layout | what lies there |
| --- | --- |
| class folders (ImageNet-R, most others) | `robin/0.jpg`, `wren/1.jpg`: one folder per class, images directly in it |
| with splits | `train/robin/0.jpg`, `test/robin/1.jpg` (or `val`, `validation`) |
| imagefolder with metadata | `metadata.jsonl` with a line {"file_name": "0.jpg", "label": "robin"} per image |
| Tiny-ImageNet | `train/n01443537/images/0.JPEG`; `val/images/0.JPEG` and `val/val_annotations.txt`; `words.txt` |
| split list | a YAML file {"data": [paths], "targets": [numbers]}, as CODA-Prompt ships them |

Files whose names begin with a dot are passed over, and texts beside class folders, such as a README.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mnemon.classification.tasks import Example, Task, check_one_class_each
from mnemon.data.layouts import existing_folder
from mnemon.data.reading import SUFFIXES, read_text
from mnemon.errors import MnemonError
from mnemon.names import NAME, NAME_RULE

Split = Literal["train", "test"]
SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val", "validation")}
METADATA, ANNOTATIONS = "metadata.jsonl", "val_annotations.txt"
Place = tuple[Path, str]
"""An image's file and its class."""


def read_task(path: Path | str, name: str | None = None, split: Split = "train") -> Task:
    """The classes of a folder as one task, in the order of their names; of a folder with splits, those of `split`.

    Raises:
        MnemonError: as `read_examples`, or the folder's name is no identifier and no `name` is given.
    """
    folder = existing_folder(path)
    examples = read_examples(folder, split)
    return Task(name or _name_of(folder), tuple(dict.fromkeys(one.label for one in examples)), tuple(examples))


def read_examples(path: Path | str, split: Split = "train") -> list[Example]:
    """All images of a folder, class by class.

    Raises:
        MnemonError: there is no such folder, it has none of the layouts, a class is empty or stands there twice, an
            image cannot be read, or one image has two classes.
    """
    examples = [Example.read(file, label) for file, label in _places(existing_folder(path), split)]
    check_one_class_each(examples)
    return examples


def read_split_list(path: Path | str, root: Path | str) -> list[Example]:
    """The images of a split list in CODA-Prompt's form, {"data": [paths], "targets": [numbers]}, as YAML or JSON.

    A class is called as the folder of its images. Paths are relative to `root`, or to a folder above it by the leading
    `data/` and the like of the lists: the longest end of a path that exists below `root` counts.

    Raises:
        MnemonError: the list is malformed, an image is missing or cannot be read, or a class has two numbers.
    """
    import yaml

    file, folder = Path(path).expanduser(), existing_folder(root)
    try:
        content = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise MnemonError(f"The split list '{file}' is no YAML: take it as it was published.") from error
    match content:
        case {"data": [*data], "targets": [*targets]} if len(data) == len(targets) and data:
            pairs: list[tuple[Any, Any]] = list(zip(data, targets, strict=True))
        case _:
            raise MnemonError(f"The split list '{file}' must have 'data' and 'targets' of one length, as published.")
    names: dict[Any, str] = {}
    places: list[Place] = []
    for relative, number in pairs:
        image = _below(folder, str(relative), file)
        label = names.setdefault(number, image.parent.name)
        if label != image.parent.name:
            raise MnemonError(
                f"The class {number} of '{file}' has images in '{label}' and in '{image.parent.name}': each class has "
                "one folder."
            )
        places.append((image, label))
    _check_unique(list(names.values()), f"'{file}'")
    return [Example.read(image, label) for image, label in places]


def check_apart(training: Sequence[tuple[str, str]], test: Sequence[Example]) -> None:
    """No image may be in both.

    Args:
        training: sha256 and source of each training image.

    Raises:
        MnemonError: one is; both files are named.
    """
    known = dict(training)
    for one in test:
        if one.sha256 in known:
            raise MnemonError(
                f"The test image '{one.source}' was trained on as '{known[one.sha256]}': accuracy on it says nothing. "
                "Take it out of the test images."
            )


def _name_of(folder: Path) -> str:
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise MnemonError(
            f"The name of the folder '{folder}' cannot name a task: give it a name (--name). Names: {NAME_RULE}"
        )
    return name


def _places(folder: Path, split: Split) -> list[Place]:
    names = sorted(SPLITS[split], key=lambda name: not (folder / name / ANNOTATIONS).is_file())  # else without labels
    chosen = next((folder / name for name in names if (folder / name).is_dir()), None)
    others = [name for names in SPLITS.values() for name in names if (folder / name).is_dir()]
    if others and chosen is None:
        wanted = SPLITS[split][0]
        raise MnemonError(
            f"The folder '{folder}' has '{others[0]}', but no '{wanted}': name the folder of the classes."
        )
    words = _words(folder / "words.txt")
    folder = chosen or folder
    if (folder / METADATA).is_file():
        return _by_metadata(folder)
    if (folder / ANNOTATIONS).is_file():
        return [(file, words.get(label, label)) for file, label in _by_annotations(folder)]
    return [(file, words.get(label, label)) for file, label in _by_folders(folder)]


def _by_folders(folder: Path) -> Iterator[Place]:
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if loose:
        raise MnemonError(f"The image '{loose[0]}' lies in no class folder: put it into one, such as '{folder}/robin'.")
    if not classes:
        raise MnemonError(f"The folder '{folder}' has no class folders: put the images of each class into its own one.")
    _check_unique([entry.name for entry in classes], f"'{folder}'")
    for entry in classes:
        inner = entry / "images" if (entry / "images").is_dir() else entry  # as in Tiny-ImageNet
        files = [file for file in _visible(inner) if file.is_file() and file.suffix.lower() in SUFFIXES]
        deeper = [one for one in _visible(inner) if one.is_dir()]
        if deeper:
            raise MnemonError(f"'{deeper[0]}' is a folder within a class: put images directly into the class's own.")
        if not files:
            raise MnemonError(f"The class folder '{entry}' has no images: add some, or delete it.")
        yield from ((file, entry.name) for file in files)


def _by_metadata(folder: Path) -> list[Place]:
    places: list[Place] = []
    for number, line in enumerate(read_text(folder / METADATA).splitlines(), start=1):
        where = f"line {number} of '{folder / METADATA}'"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        match record:
            case {"file_name": str(file_name), "label": str() | int() as label} if str(label).strip():
                places.append((_inside(folder, file_name, where), str(label).strip()))
            case _:
                raise MnemonError(
                    f"Malformed metadata in {where}: each line is one JSON object like "
                    '{"file_name": "0.jpg", "label": "robin"}.'
                )
    if not places:
        raise MnemonError(f"'{folder / METADATA}' names no images: give a line for each.")
    _check_unique(list(dict.fromkeys(label for _, label in places)), f"'{folder / METADATA}'")
    return sorted(places, key=lambda place: place[1])  # stable: within a class as in the file


def _by_annotations(folder: Path) -> Iterator[Place]:
    """Tiny-ImageNet's validation images: a line of file name, class and box each."""
    lines, where = read_text(folder / ANNOTATIONS).splitlines(), f"'{folder / ANNOTATIONS}'"
    pairs = [line.split("\t")[:2] for line in lines if line.strip()]
    if any(len(pair) < 2 for pair in pairs) or not pairs:
        raise MnemonError(f"{where} must have a file name, a tab and a class on each line, as published.")
    for file_name, label in sorted(pairs, key=lambda pair: pair[1]):
        yield _inside(folder / "images", file_name, where), label


def _words(file: Path) -> dict[str, str]:
    """What Tiny-ImageNet calls its classes, by WordNet id, where each has a name of its own; else nothing."""
    if not file.is_file():
        return {}
    pairs = [line.split("\t")[:2] for line in read_text(file).splitlines() if "\t" in line]
    used = {folder.name for folder in file.parent.glob("train/*")}
    words = {key: text.split(",")[0].strip() for key, text in pairs if key in used}
    return {key: text if list(words.values()).count(text) == 1 else f"{text} ({key})" for key, text in words.items()}


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise MnemonError(f"The folder '{folder}' cannot be read ({error.strerror}): check its permissions.") from error


def _check_unique(labels: Sequence[str], where: str) -> None:
    """Names that differ in upper case alone are one class in two folders, most likely."""
    seen: dict[str, str] = {}
    for label in labels:
        key = label.strip().casefold()
        if key in seen:
            other = seen[key]
            raise MnemonError(f"The class '{label}' is twice in {where} (also as '{other}'): put its images together.")
        seen[key] = label


def _inside(folder: Path, file_name: str, where: str) -> Path:
    """The image's path; lists must not reach files outside their folder."""
    parts = PurePosixPath(file_name)
    if parts.is_absolute() or ".." in parts.parts:
        raise MnemonError(f"The file name '{file_name}' in {where} leaves the folder: give it relative to the folder.")
    if not (folder / parts).is_file():
        raise MnemonError(f"There is no image '{folder / parts}', which {where} names: add it, or take the line out.")
    return folder / parts


def _below(folder: Path, relative: str, file: Path) -> Path:
    parts = PurePosixPath(relative).parts
    ends = [PurePosixPath(*parts[start:]) for start in range(max(len(parts) - 1, 1))]
    for end in ends:
        if not end.is_absolute() and ".." not in end.parts and (folder / end).is_file():
            return folder / end
    raise MnemonError(f"There is no image '{relative}' below '{folder}', which '{file}' names: give the list's folder.")
