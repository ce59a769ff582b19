"""Damage is seen where a file is read, and by `check`, all of it; everything else goes on."""

import re

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.library import History, Library
from mnemon.library.checking import problems
from mnemon.library.hashed import read_hashed, write_hashed
from tests.library.fakes import NamedBase, concept, same

MAY_BE_ABSENT = ("references", "scores")


@pytest.fixture
def full(library):
    """A library with every kind of file but a candidate's."""
    library.commit(concept("rex", 1))
    library.commit(concept("tom", 2))
    library.write_references("rex", {"image": torch.rand(3, 4)})
    library.write_row(2, {"concepts": {"rex": {"identity_alignment": 0.5}}})
    library.write_fused(concept("tom", 2).deltas)
    return library


def _files(library):
    return sorted(path for path in library.path.rglob("*") if path.is_file() and not path.name.startswith("lock"))


def _flip(content: bytes) -> bytes:
    """Change one letter or digit in the middle, so that JSON stays JSON."""
    middle = next(i for i in range(len(content) // 2, len(content)) if chr(content[i]).isalnum())
    return content[:middle] + (b"5" if content[middle : middle + 1] != b"5" else b"6") + content[middle + 1 :]


HARMS = {"flip": _flip, "truncate": lambda content: content[: len(content) // 2], "empty": lambda content: b""}


FACTS = {
    "flip": r"has the checksum \w{12}, where \w{12} was written|no checksum|no JSON: .* column|Error while deser",
    "truncate": r"\d+ bytes, where \d+ were written|no JSON: .* column|Error while deserializing header",
    "empty": r"0 bytes, where \d+ were written|no JSON: Expecting value|Error while deserializing header",
    "delete": "is missing",
}


@pytest.mark.parametrize("harm", FACTS)
def test_every_damaged_file_is_named(full, harm):
    assert not problems(full.path)
    for path in _files(full):
        whole = path.read_bytes()
        if harm == "delete":
            if path.parent.name in (*MAY_BE_ABSENT, "fused") or path.name in ("library.json", "000002.json"):
                continue  # may be absent, or its absence is another case
            path.unlink()
        else:
            path.write_bytes(HARMS[harm](whole))
        if path.name == "library.json":
            with pytest.raises(MnemonError, match=path.name) as raised:
                problems(full.path)
            said = [str(raised.value)]
        else:
            said = [problem.what for problem in problems(full.path)]
        assert any(path.name in text and re.search(FACTS[harm], text) for text in said), (path, said)
        path.write_bytes(whole)


def test_all_damage_is_listed_at_once_with_what_it_costs(full):
    (full.path / "concepts/000001-rex/tokens.safetensors").write_bytes(b"")
    (full.path / "concepts/000002-tom/deltas.safetensors").unlink()
    (full.path / "scores/000002.json").write_text("{}")
    found = problems(full.path)
    assert [problem.costs for problem in found] == [
        "<rex>, learned as revision 1", "<tom>, learned as revision 2", "the scores of revision 2",
    ]  # fmt: skip
    assert "is missing" in found[1].what and "at revision 1" in found[1].what and "mnemon evaluate" in found[2].what


def test_a_broken_history_says_which_revision_still_opens(full):
    (full.path / "history/000002.json").write_bytes(b"")
    assert "--at 1" in problems(full.path)[0].costs
    with pytest.raises(MnemonError, match=r"000002\.json"):
        Library.open(full.path)
    assert Library.open(full.path, at=1).names() == ["rex"]


def test_a_damaged_concept_is_refused_when_it_is_read_and_everything_else_goes_on(full):
    (full.path / "concepts/000002-tom/tokens.safetensors").write_bytes(b"")
    library = Library.open(full.path)
    assert library.names() == ["rex", "tom"] and list(library.rows()) == [2] and library.references("rex")
    with pytest.raises(MnemonError, match=r"tokens\.safetensors.*at revision 1"):
        library.learned()
    assert same(Library.open(full.path, at=1).learned()[0], concept("rex", 1))
    library.remove("tom")
    assert [one.name for one in Library.open(full.path).learned()] == ["rex"]


def test_scores_of_another_revision_are_not_taken_for_this_one(full):
    (full.path / "scores/000001.json").write_bytes((full.path / "scores/000002.json").read_bytes())
    with pytest.raises(MnemonError, match=r"000001\.json holds the scores of revision 2"):
        Library.open(full.path).rows()


def test_a_library_made_before_says_nothing_of_removal_and_can_still_do_it(full):
    header = {key: value for key, value in read_hashed(full.path / "library.json").items() if key != "seal"}
    assert header["method"].pop("can_remove") is True
    write_hashed(full.path / "library.json", header)
    history = full.path / "history"
    parent = read_hashed(full.path / "library.json")["seal"]
    for path in sorted(history.iterdir()):
        entry = {key: value for key, value in read_hashed(path).items() if key != "seal"}
        parent = write_hashed(path, entry | {"parent": parent})["seal"]
    assert History.open(full.path).remove("rex") == 3


@pytest.mark.parametrize(
    ("stale", "what"),
    [
        ("references/000002-tom.safetensors", r"is of 000001-rex, after the commit \w{12}, not of 000002-tom"),
        ("prompts/000002-tom.safetensors", "is of 000001-rex"),
        ("fused/000001.safetensors", "is of revision 2, the commit"),
        ("scores/000001.json", "holds the scores of revision 2"),
    ],
)
def test_a_file_in_the_place_of_another_is_seen(full, stale, what):
    full.write_prompt_features("rex", {"text": torch.rand(2, 2)})
    source = {"references": "000001-rex.safetensors", "prompts": "000001-rex.safetensors"}
    folder = full.path / stale.split("/")[0]
    found = source.get(folder.name, f"000002{(full.path / stale).suffix}")
    (full.path / stale).write_bytes((folder / found).read_bytes())
    (problem,) = problems(full.path)
    assert re.search(what, problem.what)


def test_a_fusion_of_a_commit_that_was_lost_is_not_used(full, tmp_path):
    """The number is the same, the commit another."""
    from mnemon.library import kept_fusion

    stale = (full.path / "fused/000002.safetensors").read_bytes()
    other = Library.create(tmp_path / "other", NamedBase(), full.method)
    other.commit(concept("rex", 1))
    other.commit(concept("zip", 3))
    (other.path / "fused").mkdir()
    (other.path / "fused/000002.safetensors").write_bytes(stale)
    assert kept_fusion(full) and kept_fusion(other) is None


def test_one_fusion_is_kept_the_newest(full):
    full.commit(concept("zip", 3))
    full.write_fused(concept("zip", 3).deltas)
    Library.open(full.path, at=1).write_fused(concept("rex", 1).deltas)
    assert [file.name for file in (full.path / "fused").iterdir()] == ["000003.safetensors"]


def test_files_of_older_versions_are_read(full):
    """They have their checksum under another key, and do not say what they belong to."""
    from mnemon.tensor_files import tensors_sha256, write_safetensors

    features = {"image": torch.rand(2, 3)}
    write_safetensors(full.path / "references/000001-rex.safetensors", features, {"seal": tensors_sha256(features)})
    row = {"state": 1, "row": {"concepts": {}}}
    write_hashed(full.path / "scores/000001.json", row)
    assert not problems(full.path)
    assert torch.equal(Library.open(full.path).references("rex")["image"], features["image"])
    assert Library.open(full.path).rows()[1] == row["row"]


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("history/000002.json", "number", "two"),
        ("history/000002.json", "photos", [{"source": 1}]),
        ("history/000002.json", "photos", "rex.jpg"),
        ("history/000002.json", "settings", []),
        ("history/000002.json", "facts", None),
        ("history/000002.json", "noun", 7),
        ("history/000002.json", "files", {"deltas.safetensors": {"sha256": 1, "bytes": "many"}}),
        ("history/000002.json", "files", []),
        ("scores/000002.json", "row", ["rex"]),
        ("scores/000002.json", "row", {"concepts": {"rex": 0.5}}),
        ("library.json", "base", "world"),
        ("library.json", "method", {"name": "adding"}),
        ("library.json", "method", {"name": ["adding"], "settings": {}}),
    ],
)
def test_records_with_a_right_checksum_and_wrong_content_are_refused(full, file, key, value):
    content = {name: one for name, one in read_hashed(full.path / file).items() if name != "seal"}
    write_hashed(full.path / file, content | {key: value})
    with pytest.raises(MnemonError, match=file):
        Library.open(full.path).rows()


def test_lists_within_lists_without_end_are_no_record(full):
    (full.path / "history/000002.json").write_text("[" * 100_000)
    with pytest.raises(MnemonError, match=r"000002\.json"):
        Library.open(full.path)
