"""What is whole of a damaged library becomes a new one, whatever is lost."""

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.library.checking import problems
from mnemon.library.salvage import salvage
from tests.library.fakes import Adding, Layering, NamedBase, concept, same

FEATURES = {"image": torch.eye(3), "identity": torch.eye(3)}
PHOTOS = [{"source": "rex/1.jpg", "sha256": "a" * 64}]


@pytest.fixture
def three(library):
    """Concepts rex and zip; tom was removed."""
    library.commit(concept("rex", 1), PHOTOS, {"steps": 3}, FEATURES)
    library.commit(concept("tom", 2))
    library.commit(concept("zip", 3, class_noun=None))
    library.remove("tom")
    return library


def _names_and_weights(out):
    assert not problems(out)
    return {one.name: one for one in Library.open(out).learned()}


def test_a_whole_library_is_salvaged_whole(three, tmp_path):
    done = salvage(three.path, tmp_path / "out")
    assert done.names == ["rex", "zip"] and not done.notes
    new = Library.open(tmp_path / "out")
    assert same(new.learned()[0], concept("rex", 1)) and new.method == Adding() and new.base_name == "world"
    entry = new.concepts()["rex"]
    assert list(entry.photos) == PHOTOS and entry.settings == {"steps": 3, "salvaged": {"state": 1}}
    assert torch.equal(new.references("rex")["identity"], FEATURES["identity"])
    assert new.commit(concept("new", 4)) == 3


@pytest.mark.parametrize("lost", ["library.json", "history/000001.json", "history/000003.json", "history"])
@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_records_that_are_lost_are_made_again_from_the_concepts_own_files(three, tmp_path, lost, how):
    gone = three.path / lost
    for file in sorted(gone.iterdir()) if gone.is_dir() else [gone]:
        file.unlink() if how == "deleted" else file.write_bytes(b"")
    done = salvage(three.path, tmp_path / "out")
    kept = _names_and_weights(tmp_path / "out")
    # That tom was removed is known to the history alone.
    assert list(kept) == (["rex", "tom", "zip"] if lost == "history" else ["rex", "zip"])
    assert same(kept["rex"], concept("rex", 1)) and same(kept["zip"], concept("zip", 3, class_noun=None))
    assert done.notes


@pytest.mark.parametrize("harm", [b"", None, b"x" * 2000])
def test_a_damaged_concept_is_left_out_with_a_word(three, tmp_path, harm):
    file = three.path / "concepts/000001-rex/tokens.safetensors"
    file.unlink() if harm is None else file.write_bytes(harm)
    (three.path / "history/000001.json").touch()
    done = salvage(three.path, tmp_path / "out")
    assert done.names == ["zip"] and "<rex> is left out" in done.notes[0] and "tokens.safetensors" in done.notes[0]


def test_damaged_references_cost_the_scores_alone(three, tmp_path):
    (three.path / "references/000001-rex.safetensors").write_bytes(b"")
    done = salvage(three.path, tmp_path / "out")
    assert done.names == ["rex", "zip"] and "<rex> cannot be scored" in done.notes[0]
    assert Library.open(tmp_path / "out").references("rex") == {}


def test_what_stands_on_a_damaged_concept_is_left_out_too(tmp_path):
    library = Library.create(tmp_path / "library", NamedBase(), Layering())
    for seed, name in enumerate(("rex", "tom", "zip")):
        library.commit(concept(name, seed))
    (library.path / "concepts/000002-tom/deltas.safetensors").write_bytes(b"")
    assert salvage(library.path, tmp_path / "out").names == ["rex"]


def test_a_file_that_was_changed_is_not_taken_for_a_lost_commit(three, tmp_path):
    (three.path / "history/000001.json").unlink()
    file = three.path / "concepts/000001-rex/deltas.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert salvage(three.path, tmp_path / "out").names == ["zip"]


def test_nothing_is_written_where_nothing_is_whole_or_something_is_there(three, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(MnemonError, match="exists already"):
        salvage(three.path, tmp_path / "out")
    for file in three.path.glob("concepts/*/*"):
        file.write_bytes(b"")
    with pytest.raises(MnemonError, match="nothing to salvage"):
        salvage(three.path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
