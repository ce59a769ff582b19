"""A purged concept is gone for good, and nothing else is."""

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.library import History, Library
from mnemon.library.checking import problems
from tests.library.fakes import Layering, NamedBase, concept, same
from tests.library.test_crash import Crash, _crash_at

PHOTOS = [{"source": "/home/jane/jane-1.jpg", "sha256": "c0ffee" * 10}]
FEATURES = {"image": torch.eye(3)}


@pytest.fixture
def three(library):
    """rex, jane and zip, jane with everything that a library may keep of a concept."""
    library.commit(concept("rex", 1))
    library.commit(
        concept("jane", 2, class_noun="person"), PHOTOS, {"imported": "/home/jane/jane.safetensors"}, FEATURES
    )
    library.write_prompt_features("jane", FEATURES)
    library.commit(concept("zip", 3))
    library.write_fused(concept("jane", 2).deltas)
    for folder in ("training/jane", "training/jane+tom", "previews/jane", "lost/concepts/000009-jane", "training/rex"):
        (library.path / folder).mkdir(parents=True)
        (library.path / folder / "file").write_text("x")
    return library


def _traces(library) -> list[str]:
    files = [path for path in library.path.rglob("*") if path.is_file()]
    named = [str(path.relative_to(library.path)) for path in files if "jane" in str(path.relative_to(library.path))]
    texts = [path.read_text() for path in files if path.suffix == ".json"]
    return named + [word for word in ("/home/jane", "c0ffee", "person") if any(word in text for text in texts)]


def test_a_purged_concept_leaves_its_name_in_the_history_and_nothing_else(three):
    assert _traces(three)
    assert three.purge("jane") == 4
    assert not _traces(three) and not list(three.path.glob("fused/*")) and (three.path / "training/rex/file").exists()
    after = Library.open(three.path)
    assert not problems(three.path)
    assert after.names() == ["rex", "zip"] and same(after.learned()[1], concept("zip", 3))
    assert [entry.action for entry in after.history()] == ["learn", "purged", "learn", "remove"]
    assert Library.open(three.path, at=3).names() == ["rex", "zip"]
    assert after.commit(concept("jane", 5)) == 5 and same(Library.open(three.path).learned()[2], concept("jane", 5))


def test_what_was_removed_or_learned_twice_is_purged_whole(three):
    three.remove("jane")
    three.commit(concept("jane", 7), PHOTOS)
    assert History.open(three.path).purge("jane") == 6
    assert not _traces(three) and not problems(three.path)
    assert History.open(three.path).purge("jane") == 6  # again: nothing left to do


@pytest.mark.parametrize("call", ["replace", "fsync", "unlink", "rmdir"])
def test_after_a_crash_the_library_opens_and_the_same_call_ends_it(three, tmp_path, monkeypatch, call):
    import shutil

    number, crashed = 1, True
    while crashed:
        path = shutil.copytree(three.path, tmp_path / str(number))
        with monkeypatch.context() as patch:
            _crash_at(patch, call, number)
            try:
                Library.open(path).purge("jane")
                crashed = False
            except Crash:
                pass
        assert set(Library.open(path).names()) >= {"rex", "zip"}
        after = Library.open(path)
        after.purge("jane")
        assert not _traces(after) and not problems(path) and after.revision == 4
        number += 1
    assert number > 2


def test_what_cannot_be_taken_out_cannot_be_purged(three, tmp_path):
    with pytest.raises(MnemonError, match="no concept 'tom'"):
        three.purge("tom")
    library = Library.create(tmp_path / "layers", NamedBase(), Layering())
    library.commit(concept("jane", 1))
    with pytest.raises(MnemonError, match="cannot remove"):
        library.purge("jane")
    assert same(Library.open(library.path).learned()[0], concept("jane", 1))
