"""The same concepts in another order, as a new library."""

from collections.abc import Sequence
from pathlib import Path

from mnemon.errors import MnemonError
from mnemon.files import new_folder
from mnemon.library import Library


def reorder(library: str | Path, out: str | Path, names: Sequence[str]) -> Library:
    """Write a new library with the concepts of an old one in the order of `names`.

    Nothing is trained again. With all concepts the model generates the same images, up to the rounding of sums;
    the revisions between differ, so scores are not carried over. The old library is only read. The new one is
    there whole or not at all.

    Raises:
        MnemonError: `names` are not the old library's, each once; the method's concepts cannot change places; `out`
            exists.
    """
    old, path = Library.open(library), Path(out)
    _check(old, names)
    if path.exists():
        raise MnemonError(f"{path} exists already: choose a new folder for the library in its new order.")
    learned, entries = {one.name: one for one in old.learned()}, old.concepts()
    with new_folder(path) as aside:
        new = Library.create(aside, old, old.method)
        for name in names:
            entry = entries[name]
            settings = {**entry.settings, "reordered": {"library": old.path.resolve().name, "state": entry.number}}
            new.commit(learned[name], entry.photos, settings, old.references(name))
        for file in aside.glob("lock*"):
            file.unlink()
    return Library.open(path)


def _check(library: Library, names: Sequence[str]) -> None:
    if reason := library.method.order_matters:
        raise MnemonError(
            f"Concepts of the method '{library.method.name}' cannot change places: {reason}. Learn them "
            "anew in the order you want."
        )
    for name in names:
        if name not in library.names():
            raise MnemonError(f"{library.path} has no concept '{name}'; it has: {', '.join(library.names())}.")
    wrong = [name for name in library.names() if list(names).count(name) != 1]
    if wrong:
        raise MnemonError(f"Name every concept of {library.path} once, in the new order: look at '{wrong[0]}'.")
