"""What a library keeps, and what it refuses."""

import json

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.library import Library, Proposal, commit_all
from tests.library.fakes import Adding, Layering, NamedBase, concept, same

PHOTOS = [{"source": "rex/1.jpg", "sha256": "a" * 64}]


def test_a_new_library_is_empty_and_knows_its_base_and_method(library):
    assert (library.revision, library.names(), library.learned(), library.rows()) == (0, [], [], {})
    assert (library.base_name, library.family, library.fingerprint) == ("world", "sd", "f" * 64)
    assert library.method == Adding()


def test_method_settings_are_kept(tmp_path):
    Library.create(tmp_path / "library", NamedBase(), Adding(rank=7))
    assert Library.open(tmp_path / "library").method == Adding(rank=7)


def test_concepts_come_back_bit_for_bit_and_in_order(library):
    taught = [concept(f"thing-{index}", index, class_noun=None if index % 2 else "cup") for index in range(12)]
    states = [library.commit(one) for one in taught]
    assert states == list(range(1, 13))
    reopened = Library.open(library.path)
    assert reopened.names() == [one.name for one in taught]
    assert all(same(left, right) for left, right in zip(reopened.learned(), taught, strict=True))


def test_entry_tells_what_was_done(library):
    library.commit(concept("rex", 1), PHOTOS, {"steps": 200})
    for entry in (library.history()[0], Library.open(library.path).history()[0]):
        assert (entry.number, entry.action, entry.concept, entry.class_noun) == (1, "learn", "rex", "dog")
        assert (list(entry.photos), entry.settings, entry.facts) == (PHOTOS, {"steps": 200}, {"seed": 1})
        assert entry.stored_bytes == sum(f.stat().st_size for f in (library.path / "concepts/000001-rex").iterdir())
    assert library.history() == Library.open(library.path).history()


def test_any_past_state_opens_exactly(library):
    first, second, other = concept("rex", 1), concept("tom", 2), concept("rex", 3)
    library.commit(first)
    library.commit(second)
    library.remove("rex")
    library.commit(other)
    expected = [[], [first], [first, second], [second], [second, other]]
    for state, concepts in enumerate(expected):
        past = Library.open(library.path, at=state)
        assert past.revision == state
        assert len(past.learned()) == len(concepts)
        assert all(same(left, right) for left, right in zip(past.learned(), concepts, strict=True))


def test_a_past_state_is_read_only(library):
    library.commit(concept("rex", 1))
    past = Library.open(library.path, at=0)
    with pytest.raises(MnemonError, match="past revision 0"):
        past.commit(concept("tom", 2))
    with pytest.raises(MnemonError, match="revisions are 0 to 1"):
        Library.open(library.path, at=2)
    assert Library.open(library.path, at=1).commit(concept("tom", 2)) == 2


def test_a_taken_name_is_refused_and_free_again_after_removal(library):
    library.commit(concept("rex", 1))
    with pytest.raises(MnemonError, match="already has a concept 'rex'"):
        library.commit(concept("rex", 2))
    library.remove("rex")
    library.commit(concept("rex", 3))
    assert same(Library.open(library.path).learned()[0], concept("rex", 3))


def test_removing_an_unknown_concept_names_the_known_ones(library):
    library.commit(concept("rex", 1))
    with pytest.raises(MnemonError, match="no concept 'tom'; it has: rex"):
        library.remove("tom")


def test_a_method_that_layers_refuses_removal(tmp_path):
    library = Library.create(tmp_path / "library", NamedBase(), Layering())
    library.commit(concept("rex", 1))
    with pytest.raises(MnemonError, match="'layering' cannot remove"):
        library.remove("rex")
    assert Library.open(library.path).names() == ["rex"]


def test_another_base_is_refused_by_name(library):
    library.check_base(NamedBase(name="moved/world"))
    with pytest.raises(MnemonError, match="'world'.*'sdxl-base'"):
        library.check_base(NamedBase("sdxl-base", "e" * 64))


def test_a_folder_that_is_no_library_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(MnemonError, match="does not exist.*mnemon learn"):
        Library.open(tmp_path / "nowhere")
    with pytest.raises(MnemonError, match="is no library"):
        Library.open(tmp_path)


def test_creating_over_something_else_is_refused(library, tmp_path):
    with pytest.raises(MnemonError, match="already a library"):
        Library.create(library.path, NamedBase(), Adding())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(MnemonError, match="not an empty folder"):
        Library.create(tmp_path / "thesis", NamedBase(), Adding())


def test_an_unknown_format_is_refused(library):
    from mnemon.library.hashed import read_hashed, write_hashed

    header = read_hashed(library.path / "library.json")
    write_hashed(library.path / "library.json", {k: v for k, v in header.items() if k != "seal"} | {"format": 2})
    with pytest.raises(MnemonError, match="format 2, this mnemon reads format 1"):
        Library.open(library.path)


def test_rows_are_kept_by_state_and_may_be_measured_again(library):
    library.commit(concept("rex", 1))
    library.commit(concept("tom", 2))
    library.write_row(2, {"concepts": {"rex": {"identity_alignment": 0.5}}})
    library.write_row(1, {"concepts": {}})
    library.write_row(2, {"concepts": {"rex": {"identity_alignment": 0.75}}})
    assert list(library.rows()) == [1, 2]
    assert library.rows()[2]["concepts"]["rex"] == {"identity_alignment": 0.75}
    assert list(Library.open(library.path, at=1).rows()) == [1]
    with pytest.raises(MnemonError, match="no revision 3"):
        library.write_row(3, {})


def test_references_belong_to_the_commit_not_to_the_name(library):
    features = {"image": torch.rand(3, 4), "identity": torch.rand(3, 5)}
    library.commit(concept("rex", 1))
    assert library.references("rex") == {}
    library.write_references("rex", features)
    library.remove("rex")
    library.commit(concept("rex", 2))
    assert Library.open(library.path).references("rex") == {}
    kept = Library.open(library.path, at=1).references("rex")
    assert kept.keys() == features.keys() and all(torch.equal(kept[key], features[key]) for key in kept)


def test_an_entry_from_another_history_is_refused(library, tmp_path):
    other = Library.create(tmp_path / "other", NamedBase(), Adding(rank=3))
    for one in (library, other):
        one.commit(concept("rex", 1))
        one.commit(concept("tom", 2))
    stranger = other.path / "history" / "000001.json"
    (library.path / "history" / "000001.json").write_bytes(stranger.read_bytes())
    with pytest.raises(
        MnemonError, match=r"000001.json does not belong to this history \(it follows \w{12}, where entry 1 follows"
    ):
        Library.open(library.path)


def test_an_entry_cannot_lead_out_of_the_folder(library):
    from mnemon.library.hashed import write_hashed

    library.commit(concept("rex", 1))
    path = library.path / "history" / "000001.json"
    body = json.loads(path.read_text())
    del body["seal"]
    write_hashed(path, body | {"concept": "../../rex"})
    with pytest.raises(MnemonError, match=r"000001.json is not an entry .*\(no concept can be called '../../rex'\)"):
        Library.open(library.path)


def test_the_same_concepts_are_the_same_bytes_in_every_library(library, tmp_path):
    """Whenever they were learned."""
    other = Library.create(tmp_path / "other", NamedBase(), library.method)
    library.commit(concept("rex", 1))
    library.commit(concept("tom", 2), [{"source": "a", "sha256": "b"}])
    with other.lock():
        commit_all(other, [Proposal(concept("rex", 1))])
        commit_all(other, [Proposal(concept("tom", 2))])
    assert all(library.concepts()[name].files == other.concepts()[name].files for name in ("rex", "tom"))
