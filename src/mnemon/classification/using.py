"""What a person does with a library of classes: learn, predict."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemon.classification.backbone import BUILT_IN, Backbone, load_backbone
from mnemon.classification.library import ClassLibrary
from mnemon.classification.methods import ClassifierMethod, classifier_from
from mnemon.classification.predicting import Classifier
from mnemon.classification.reading import read_task
from mnemon.classification.tasks import Task
from mnemon.classification.training import OnStep, train_task
from mnemon.data.reading import read_photo
from mnemon.errors import MnemonError
from mnemon.library import is_library
from mnemon.settings import DEFAULT_METHOD
from mnemon.training.resume import discard_checkpoint, run_folder


def learn_classes(
    library: Path | str,
    task: Task | Path | str,
    *,
    name: str | None = None,
    backbone: Backbone | str | None = None,
    method: ClassifierMethod | str | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> int:
    """Learn one task; returns the library's new revision. A run that was killed goes on where it was.

    Args:
        library: its folder; a new one is made.
        task: or a folder of class folders.
        name: the task's, if it is a folder; else the folder's.
        backbone: or its folder or hub id; by default that of the library, for a new one the built-in one.
        method: or its name, for a new library; `stamina` by default.

    Raises:
        MnemonError: the folder cannot be read, a class was learned before, the backbone is missing or another one, the
            method is another than the library's, or the training diverged.
    """
    new = task if isinstance(task, Task) else read_task(task, name)
    opened = _library(library, backbone_of(library, backbone), method)
    with opened[0].lock():
        opened[0].check_new(new)
        folder = run_folder(opened[0].path, [new.name])
        began = time.monotonic()
        earlier = opened[0].learned()
        trained = train_task(opened[1], opened[0].method, new, earlier, seed=seed, folder=folder, on_step=on_step)
        revision = opened[0].commit(new, trained, {"seed": seed, "seconds": round(time.monotonic() - began, 1)})
        discard_checkpoint(folder)
    return revision


def predict(
    library: Path | str,
    images: Sequence[Path | str],
    *,
    backbone: Backbone | str | None = None,
    at: int | None = None,
    top: int = 1,
) -> list[dict[str, Any]]:
    """For each image file {"image", "classes": the `top` best, "shares": their softmax}, the best first.

    Raises:
        MnemonError: nothing was learned yet, an image cannot be read, or the backbone is missing or another one.
    """
    opened = ClassLibrary.open(library, at)
    on = backbone_of(library, backbone)
    opened.check_backbone(on)
    pictures = [read_photo(Path(image)).image for image in images]
    with Classifier.opened(on, opened.method, opened.learned()) as classifier:
        best = classifier.predict(pictures).softmax(1).topk(min(top, len(classifier.classes)), dim=1)
    rows = zip(images, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        {"image": str(image), "classes": [classifier.classes[place] for place in places], "shares": shares}
        for image, places, shares in rows
    ]


def backbone_of(library: Path | str, backbone: Backbone | str | None) -> Backbone:
    """The backbone that was given, or else the library's own; the built-in one where there is no library yet.

    Raises:
        MnemonError: it cannot be read.
    """
    if isinstance(backbone, Backbone):
        return backbone
    if backbone is None:
        backbone = ClassLibrary.open(library).base_name if is_library(library) else BUILT_IN
    return load_backbone(backbone)


def method_of(method: str | None, settings: Mapping[str, Any]) -> ClassifierMethod:
    """The method by its name and settings, `stamina` without a name."""
    return classifier_from(method or DEFAULT_METHOD, settings)


def _library(
    path: Path | str, backbone: Backbone, method: ClassifierMethod | str | None
) -> tuple[ClassLibrary, Backbone]:
    chosen = method if isinstance(method, ClassifierMethod) else method_of(method, {})
    library = ClassLibrary.open_or_create(path, backbone, chosen)
    differs = chosen.name != library.method.name if isinstance(method, str) else chosen != library.method
    if method is not None and differs:
        raise MnemonError(
            f"The library {library.path} learns with '{library.method.name}' and its settings, not with these: leave "
            "the method out, or make a new library."
        )
    return library, backbone
