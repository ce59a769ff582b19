"""A candidate is kept aside without touching the library, and is taken in whole or not at all, crashes included."""

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.library import (
    Candidate,
    History,
    Library,
    Proposal,
    commit_all,
    commit_candidate,
    discard_candidate,
    has_candidate,
    put_aside,
    read_candidate,
)
from tests.library.fakes import Adding, NamedBase, concept, same
from tests.library.test_crash import Crash, _crash_at

ROW = {"concepts": {"rex": {"identity_alignment": 0.5}}, "general": {}}
FEATURES = {"identity": torch.eye(3)}


def candidate() -> Candidate:
    photos = [{"source": "tom/1.jpg", "sha256": "a" * 64}]
    proposals = (Proposal(concept("tom", 2), photos, {"seconds": 3}, FEATURES), Proposal(concept("sip", 3)))
    return Candidate(proposals, ROW, {"rex": (0.9, 0.5)})


def prepared(path) -> Library:
    library = Library.create(path, NamedBase(), Adding())
    library.commit(concept("rex", 1))
    return library


def test_a_candidate_is_no_part_of_the_library_until_it_is_taken_in(tmp_path):
    library = prepared(tmp_path / "library")
    put_aside(library, candidate())
    assert Library.open(library.path).names() == ["rex"]
    kept = read_candidate(Library.open(library.path))
    assert kept.names == ["tom", "sip"] and kept.row == ROW and kept.forgets == {"rex": (0.9, 0.5)}
    assert all(same(a.learned, b.learned) for a, b in zip(kept.proposals, candidate().proposals, strict=True))
    assert commit_candidate(Library.open(library.path)) == 3
    after = Library.open(library.path)
    assert after.names() == ["rex", "tom", "sip"] and after.rows() == {3: ROW}
    entry = after.concepts()["tom"]
    assert entry.photos[0]["source"] == "tom/1.jpg"
    assert entry.settings == {"seconds": 3, "forgets": {"rex": [0.9, 0.5]}}
    assert torch.equal(after.references("tom")["identity"], FEATURES["identity"])
    assert not (library.path / "candidate").exists()
    with pytest.raises(MnemonError, match="No candidate is staged"):
        commit_candidate(after)


def test_discarding_leaves_the_library_as_it_was(tmp_path):
    library = prepared(tmp_path / "library")
    put_aside(library, candidate())
    with pytest.raises(MnemonError, match="staged in .* already"):
        put_aside(library, candidate())
    discard_candidate(library)
    assert not has_candidate(library) and Library.open(library.path).names() == ["rex"]


def test_a_candidate_of_another_state_is_refused(tmp_path):
    library = prepared(tmp_path / "library")
    put_aside(library, candidate())
    library.commit(concept("may", 4))
    with pytest.raises(MnemonError, match=r"was learned at revision 1 \(then came: learn <may>\)"):
        commit_candidate(library)


def test_a_damaged_candidate_is_named_and_does_not_stop_the_library(tmp_path):
    library = prepared(tmp_path / "library")
    put_aside(library, candidate())
    (library.path / "candidate" / "0" / "deltas.safetensors").write_bytes(b"nothing")
    after = Library.open(library.path)
    with pytest.raises(MnemonError, match=r"deltas.safetensors is .*it has 7 bytes, where \d+ were.*mnemon discard"):
        commit_candidate(after)
    assert after.names() == ["rex"]
    discard_candidate(after)


@pytest.mark.filterwarnings("ignore:.*belongs to no commit")
@pytest.mark.parametrize("call", ["replace", "fsync", "unlink"])
@pytest.mark.parametrize("doing", [put_aside, commit_candidate])
def test_after_a_crash_at_any_write_the_same_call_ends_the_same(tmp_path, monkeypatch, call, doing):
    number, crashed = 1, True
    while crashed:
        library = prepared(tmp_path / str(number))
        if doing is commit_candidate:
            put_aside(library, candidate())
        with monkeypatch.context() as patch:
            _crash_at(patch, call, number)
            try:
                _do(doing, library)
                crashed = False
            except Crash:
                pass
        after = Library.open(library.path)
        if doing is put_aside:
            assert after.names() == ["rex"]
        if doing is put_aside or has_candidate(after):
            if not has_candidate(after):
                put_aside(after, candidate())
            commit_candidate(after)
        final = Library.open(library.path)
        assert final.names() == ["rex", "tom", "sip"] and final.rows() == {3: ROW}
        number += 1
    assert number > (2 if call != "unlink" or doing is commit_candidate else 1)


def _do(doing, library) -> None:
    put_aside(library, candidate()) if doing is put_aside else commit_candidate(library)


@pytest.mark.filterwarnings("ignore:.*belongs to no commit")
@pytest.mark.parametrize("call", ["replace", "fsync", "unlink"])
def test_concepts_learned_together_come_in_all_or_none(tmp_path, monkeypatch, call):
    """Whatever writes next after a crash finishes what was begun: here the removal of an earlier concept."""
    number, crashed, seen = 1, True, set()
    while crashed:
        library = prepared(tmp_path / str(number))
        with monkeypatch.context() as patch:
            _crash_at(patch, call, number)
            try:
                with library.lock():
                    commit_all(library, candidate().proposals)
                crashed = False
            except Crash:
                pass
        History.open(library.path).remove("rex")
        after = Library.open(library.path)
        seen.add(tuple(after.names()))
        if after.names():
            assert same(after.learned()[1], concept("sip", 3)) and "forgets" not in after.concepts()["tom"].settings
            assert torch.equal(after.references("tom")["identity"], FEATURES["identity"])
            assert not (library.path / "candidate").exists()
        number += 1
    assert seen == {(), ("tom", "sip")}


def test_a_commit_that_cannot_be_finished_can_be_dropped(tmp_path):
    library = prepared(tmp_path / "library")
    put_aside(library, candidate(), accepted=True)
    (library.path / "candidate/1/tokens.safetensors").write_bytes(b"")
    with pytest.raises(MnemonError, match="mnemon discard"):
        library.commit(concept("zip", 4))
    discard_candidate(Library.open(library.path))
    assert Library.open(library.path).commit(concept("zip", 4)) == 2
