"""What is taken away by the next writer, and what is not."""

import shutil

import pytest

from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.library.checking import problems
from tests.library.fakes import concept


@pytest.fixture
def two(library):
    library.commit(concept("rex", 1))
    library.commit(concept("tom", 2))
    return library


def _everything(path):
    return {str(file.relative_to(path)) for file in path.rglob("*") if "lock" not in file.name}


def test_a_whole_concept_whose_history_file_is_lost_is_moved_aside_with_a_word(two):
    (two.path / "history/000002.json").unlink()
    before = (two.path / "concepts/000002-tom/deltas.safetensors").read_bytes()
    with pytest.warns(UserWarning, match=r"concepts/000002-tom belongs to no commit.*lost/concepts/000002-tom"):
        Library.open(two.path).commit(concept("zip", 3))
    assert (two.path / "lost/concepts/000002-tom/deltas.safetensors").read_bytes() == before
    assert Library.open(two.path).names() == ["rex", "zip"]


def test_two_lost_concepts_of_one_name_are_both_kept(two):
    for _ in range(2):
        shutil.copytree(two.path / "concepts/000002-tom", two.path / "concepts/000003-tom")
        with pytest.warns(UserWarning, match="belongs to no commit"), two.lock():
            pass
    assert len(list((two.path / "lost/concepts").iterdir())) == 2


@pytest.mark.parametrize("later", ["scores/000002.json", "concepts/000003-zip", "fused/000007.safetensors"])
def test_a_history_that_is_behind_is_not_written_on(two, later):
    (two.path / "history/000002.json").unlink()
    (two.path / later).parent.mkdir(exist_ok=True)
    (two.path / later).mkdir() if "concepts" in later else (two.path / later).touch()
    opened, before = Library.open(two.path), _everything(two.path)
    with pytest.raises(MnemonError, match=f"{later}, but its history ends at revision 1"):
        opened.commit(concept("new", 3))
    assert _everything(two.path) == before
    assert any(later in problem.what for problem in problems(two.path))


@pytest.mark.parametrize("stray", [".DS_Store", "rex (conflicted copy)", "000001-rex.bak", "000001-rex copy"])
@pytest.mark.parametrize("folder", ["concepts", "references", "history", "scores"])
def test_what_others_put_there_stays(two, folder, stray):
    (two.path / folder).mkdir(exist_ok=True)
    (two.path / folder / stray).write_text("mine")
    two.commit(concept("zip", 3))
    assert (two.path / folder / stray).read_text() == "mine"
    assert Library.open(two.path).names() == ["rex", "tom", "zip"]


def test_a_linked_folder_is_not_cleared(two, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(two.path / "concepts", elsewhere)
    (elsewhere / "000009-other").mkdir()
    (two.path / "concepts").symlink_to(elsewhere)
    Library.open(two.path).commit(concept("zip", 3))
    assert (elsewhere / "000009-other").is_dir()


@pytest.mark.parametrize("name", ["lock", "lock.pid"])
def test_a_lock_that_is_a_link_is_refused_and_nothing_behind_it_is_written(two, tmp_path, name):
    (tmp_path / "thesis").write_text("mine")
    (two.path / name).unlink(missing_ok=True)
    (two.path / name).symlink_to(tmp_path / "thesis")
    with pytest.raises(MnemonError, match=f"{name} is a link"):
        two.commit(concept("zip", 3))
    assert (tmp_path / "thesis").read_text() == "mine"
