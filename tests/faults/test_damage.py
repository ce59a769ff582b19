"""Every file of a library damaged in every way: it is said, or the file may be absent; the rest goes on."""

import shutil

import pytest

from mnemon.errors import MnemonError
from mnemon.library import Library, kept_fusion
from mnemon.library.checking import problems
from mnemon.library.salvage import salvage
from tests.faults.scenarios import contents, start
from tests.library.fakes import register_methods

MAY_BE_ABSENT = ("references", "scores", "fused", "prompts")


def _flip(at):
    def harm(path, _):
        content = bytearray(path.read_bytes())
        content[int(at * (len(content) - 1))] ^= 1
        path.write_bytes(bytes(content))

    return harm


def _swap(path, others):
    others = [other for other in others if other.suffix == path.suffix and other.parent.name != "lost"]
    same_kind = [other for other in others if (other.parent.name, other.name) != (path.parent.name, path.name)]
    near = [other for other in same_kind if other.read_bytes() != path.read_bytes()]
    path.write_bytes(near[0].read_bytes())


HARMS = {
    "flip at the start": _flip(0),
    "flip in the middle": _flip(0.5),
    "flip at the end": _flip(0.98),
    "truncate": lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path, _: path.write_bytes(b""),
    "append": lambda path, _: path.write_bytes(path.read_bytes() + b"x"),
    "swap": _swap,
    "delete": lambda path, _: path.unlink(),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    register_methods()
    path = tmp_path_factory.mktemp("damage") / "start"
    start(path)
    library = Library.open(path)
    library.write_references("may", {"image": library.references("rex")["image"] * 2})
    library.write_row(1, {"concepts": {}})
    return path


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_said_and_the_rest_goes_on(harm, every, template, tmp_path, counts):
    files = sorted(path.relative_to(template) for path in template.rglob("*") if path.is_file())
    files = [file for file in files if not file.name.startswith("lock")]
    whole, first = contents(template), list(HARMS).index(harm) % every  # another sixth of the files for each harm
    for number, file in enumerate(files[first::every]):
        path = shutil.copytree(template, tmp_path / str(number))
        HARMS[harm](path / file, sorted(path.rglob("*.*")))
        newest = file.name == "000004.json" and file.parent.name == "history" and harm == "delete"
        absent = harm == "delete" and file.parts[0] in MAY_BE_ABSENT
        try:
            said = [problem.what for problem in problems(path)]
        except MnemonError as error:  # library.json
            said = [str(error)]
        blank = harm == "append" and file.suffix == ".json"  # "x" after JSON is no JSON; a line end would be nothing
        assert absent or newest or blank or any(file.name in text or str(path) in text for text in said), (file, said)
        assert not (newest and not said)  # scores and fusion of a later revision tell
        counts["damaged files, seen"] += 1
        _rest_goes_on(path, file, whole, tmp_path / f"{number}-out", counts)
        shutil.rmtree(path)


def _rest_goes_on(path, file, whole, out, counts) -> None:
    """A concept's damage costs that one; of records, what is whole can be salvaged."""
    expected = {"rex", "may"} - ({file.parts[1][7:]} if file.parts[0] == "concepts" else set())
    done = salvage(path, out)
    assert set(done.names) - {"gone"} == expected, (file, done)
    held = contents(out)
    assert all(held[f"concept {name}"] == whole[f"concept {name}"] for name in expected)
    counts["damaged files, the other concepts whole in a new library"] += 1
    if file.parts[0] in MAY_BE_ABSENT:
        library = Library.open(path)
        assert len(library.learned()) == 2
        kept_fusion(library)
