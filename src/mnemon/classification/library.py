"""A library of classes on disk: the history of `mnemon.library`, each of whose entries brings a task."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file

from mnemon.adapters import load_deltas, save_deltas
from mnemon.classification.backbone import Backbone
from mnemon.classification.methods import ClassifierMethod, TrainedTask, classifier_from, classifier_settings
from mnemon.classification.tasks import Task
from mnemon.errors import MnemonError
from mnemon.library import History, is_library
from mnemon.library.concepts import write_files
from mnemon.library.entry import DELTAS, EXTRA, HEAD, LEARN, Entry
from mnemon.library.hashed import check_file
from mnemon.library.header import CLASSES, write_header


class ClassLibrary(History):
    """A library of classes at one revision of its history.

    Attributes:
        method: how its tasks are learned and composed.
    """

    kind: ClassVar[str] = CLASSES

    def __init__(self, path: Path, header: Mapping[str, Any], at: int | None) -> None:
        super().__init__(path, header, at)
        self.method: ClassifierMethod = classifier_from(self.method_name, header["method"]["settings"])

    @classmethod
    def open_or_create(cls, path: Path | str, backbone: Backbone, method: ClassifierMethod) -> "ClassLibrary":
        """The library in the folder, which must be of this backbone; without one there, a new one with `method`.

        Raises:
            MnemonError: it is of another backbone, the method cannot work on this one, or there is something else.
        """
        if is_library(path):
            library = cls.open(path)
            library.check_backbone(backbone)
            return library
        method.check_backbone(backbone)
        base = {"name": backbone.name, "family": backbone.family, "fingerprint": backbone.fingerprint}
        described = {"name": method.name, "settings": classifier_settings(method), "can_remove": False}
        write_header(Path(path), base, described, CLASSES)
        return cls.open(path)

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises:
        MnemonError: the library was made on another backbone.
        """
        if backbone.fingerprint != self.fingerprint:
            raise MnemonError(
                f"The library {self.path} was made on the backbone '{self.base_name}' ({self.fingerprint[:12]}), not "
                f"on '{backbone.name}' ({backbone.fingerprint[:12]}): open it with the one it was made on."
            )

    def classes(self) -> dict[str, str]:
        """Class -> the task that brought it, in the order of the head's rows."""
        return {label: name for name, entry in self.concepts().items() for label in entry.facts["classes"]}

    def check_new(self, task: Task) -> None:
        """Worth asking before training.

        Raises:
            MnemonError: the name is taken, or a class is of an earlier task.
        """
        if task.name in self.names():
            raise MnemonError(f"The library {self.path} has a task '{task.name}' already: give it another name.")
        known = self.classes()
        for label in task.classes:
            if label in known:
                raise MnemonError(
                    f"The class '{label}' was learned with the task '{known[label]}' of the library {self.path}: a "
                    "class comes once, with all its images. Leave it out, or give it another name."
                )

    def training_images(self) -> list[tuple[str, str]]:
        """sha256 and source of each image that was trained on."""
        return [(photo["sha256"], photo["source"]) for entry in self.concepts().values() for photo in entry.photos]

    def learned(self) -> list[TrainedTask]:
        """The tasks of this revision in order, freshly read from disk.

        Raises:
            MnemonError: a file of a task is missing or was changed; the message names it.
        """
        return [self._read(entry) for entry in self.concepts().values()]

    def commit(self, task: Task, trained: TrainedTask, settings: Mapping[str, Any]) -> int:
        """Add a task; returns the new revision.

        Raises:
            MnemonError: as `check_new`, the library was opened at a past revision, or another process wrote to it.
        """
        with self.lock():
            self._check_writable()
            self.check_new(task)
            entry = replace(
                self._next(LEARN, task.name),
                photos=[{"source": one.source, "sha256": one.sha256} for one in task.examples],
                settings=dict(settings),
                facts={**trained.facts, "classes": list(trained.classes)},
            )
            tensors = {DELTAS: save_deltas(trained.deltas), HEAD: trained.head, EXTRA: trained.extra}
            files = write_files(self.path / "concepts" / entry.folder, tensors, self.about(entry))
            return self._append(replace(entry, files=files))

    def _read(self, entry: Entry) -> TrainedTask:
        folder = self.path / "concepts" / entry.folder
        for name, file in entry.files.items():
            check_file(folder / name, file.sha256, file.bytes, entry.remedy)
        facts = dict(entry.facts)
        classes = tuple(facts.pop("classes"))
        extra = load_file(folder / EXTRA) if EXTRA in entry.files else {}
        deltas = load_deltas(load_file(folder / DELTAS))
        return TrainedTask(entry.concept, classes, load_file(folder / HEAD), deltas, extra, facts)
