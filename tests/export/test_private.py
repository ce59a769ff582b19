"""What goes to others names no folder of this machine, and what stands in it is escaped."""

import json
import re
import shutil

import pytest
from safetensors import safe_open

from mnemon import api
from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.models import load_base
from mnemon.names import check_noun, printable, public_base
from tests.contract.table import learn, small

NOUN = 'dog `x` | y " + z'


@pytest.fixture(scope="module")
def base(folders, tmp_path_factory):
    """A base in a folder of somebody's."""
    home = tmp_path_factory.mktemp("jane")
    shutil.copytree(folders["sd"], home / "models" / "mine")
    return load_base(str(home / "models" / "mine"), "cpu")


@pytest.fixture(scope="module")
def noted(base, tmp_path_factory):
    """A library with a concept whose noun is odd."""
    method = small("lora")
    library = Library.create(tmp_path_factory.mktemp("jane") / "library", base, method)
    library.commit(learn(base, method, "rex", class_noun=NOUN))
    return library


@pytest.mark.parametrize("kind", ["diffusers", "kohya", "folder"])
def test_an_export_names_no_folder(noted, base, tmp_path, kind):
    made = api.export_concepts(noted, tmp_path / "out", kind=kind, base=base)
    said = [(made.folder / "README.md").read_text()]
    said += [path.read_text() for path in made.folder.rglob("*config.json")]
    for path in made.folder.rglob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            said.append(json.dumps(file.metadata()))
    said += [path.read_text() for path in made.folder.glob("model_index.json")]
    assert not [text for text in said if "jane" in text]
    assert any(base.fingerprint[:12] in text for text in said)


def test_a_card_says_what_the_noun_is_and_nothing_runs_by_it(noted, base, tmp_path):
    made = api.export_concepts(noted, tmp_path / "out", base=base)
    card = (made.folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(code, "card", "exec")
    assert json.loads(re.search(r"^pipeline\((.*)\)$", code, re.MULTILINE)[1]).endswith(NOUN)
    assert r"`` <rex> dog `x` \| y" in card


def test_pictures_name_no_folder(noted, base, tmp_path):
    api.generate(noted, "a photo of <rex>", base=base, num_inference_steps=1, out=tmp_path)
    content = (tmp_path / "00000.png").read_bytes()
    assert b"jane" not in content and b'"library": "library"' in content and base.fingerprint[:12].encode() in content


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("world", "world"), ("owner/model", "owner/model"), ("owner/model:fp16", "owner/model:fp16"),
        ("/home/jane/sdxl", "sdxl abcdefabcdef"), ("/home/jane/x.safetensors:v_prediction", "sdxl abcdefabcdef"),
        (r"C:\Users\jane\sdxl", "sdxl abcdefabcdef"), ("a/b/c", "sdxl abcdefabcdef"),
    ],
)  # fmt: skip
def test_a_base_is_said_by_hub_id_or_fingerprint(name, said):
    assert public_base(name, "sdxl", "abcdef" * 10) == said


@pytest.mark.parametrize("noun", ["dog\x1b[2J", "dog\nrm", "a\u202egod", "x" * 300, "\x9b1m", "tab\tbed"])
def test_a_noun_is_one_printable_line(noun):
    with pytest.raises(MnemonError, match="is no class noun"):
        check_noun(noun)


def test_what_a_terminal_would_obey_is_shown_as_its_code():
    assert printable("a\x1b[31mb\u202ec\nd\te") == "a\\u001b[31mb\\u202ec\nd\te"
    assert printable("naïve 犬 dog") == "naïve 犬 dog"
