"""Config files: the same file gives the same library, and the command line goes before it."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from mnemon.cli.config import read_config
from mnemon.cli.init import config_text
from mnemon.library import Library
from mnemon.methods import method_from, method_settings
from mnemon.settings import settings_from_json
from mnemon.training import TrainingSettings
from tests.cli.conftest import Command


@pytest.fixture
def config(photos: Path, world_folder: Path, mnemon: Command) -> Path:
    """`here/concepts.toml`, with two concepts."""
    folder = Path("here")
    shutil.copytree(photos, folder / "photos")
    text = f"""
        library = "lib"
        base = "{world_folder}"
        method = "lora"
        score = "none"
        [settings]
        rank = 2
        token_lr = 1e-3
        [training]
        steps = 2
        batch = 2
        seed = 3
        [photos]
        flip = true
        [[concepts]]
        photos = "photos/sip"
        class_noun = "mug"
        [[concepts]]
        photos = "photos/tom"
        name = "tom"
        training = {{ steps = 1, lr_scheduler = "cosine" }}
    """
    file = folder / "concepts.toml"
    file.write_text(text, encoding="utf-8")
    return file


def hashes(library: Path) -> list[object]:
    return [entry.files for entry in Library.open(library).history()]


def test_the_same_file_gives_the_same_library_and_goes_on(mnemon: Command, config: Path) -> None:
    learned = mnemon("learn", "--config", config, "--json")
    assert learned.code == 0 and [one["concept"] for one in learned.json] == ["sip", "tom"]
    library = Library.open("here/lib")
    assert library.method == method_from("lora", {"rank": 2, "token_lr": 1e-3})
    sip, tom = (entry.settings["training"] for entry in library.history())
    assert (sip["steps"], sip["batch_size"], sip["seed"], sip["lr_scheduler"]) == (2, 2, 3, "constant")
    assert (tom["steps"], tom["batch_size"], tom["seed"], tom["lr_scheduler"]) == (1, 2, 3, "cosine")
    assert library.rows() == {} and library.concepts()["sip"].class_noun == "mug"
    again = mnemon("learn", "--config", config)
    assert again.code == 0 and "'tom' is in the library already" in again.err
    assert mnemon("learn", "--config", config, "--library", "other").code == 0
    assert hashes(Path("other")) == hashes(Path("here/lib"))


def test_the_command_line_goes_before_the_file(mnemon: Command, config: Path, photos: Path) -> None:
    options = ("--library", "mine", "--set", "rank=3", "--steps", 1, "--seed", 0, "--training", "lr_warmup_steps=5")
    assert mnemon("learn", photos / "sip", "--config", config, *options).code == 0
    library = Library.open("mine")
    assert library.names() == ["sip"] and method_settings(library.method)["rank"] == 3
    training = library.history()[0].settings["training"]
    assert (training["steps"], training["seed"], training["batch_size"]) == (1, 0, 2)
    assert training["lr_warmup_steps"] == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("libary = 'x'", "has no 'libary'; did you mean 'library'?"),
        ("[training]\nstep = 3", "no setting 'step'; did you mean 'steps'?"),
        ("[training]\nsteps = -3", "'steps' is -3"),
        ("[settings]\nrnk = 3", "no setting 'rnk'; did you mean 'rank'?"),
        ("[photos]\nfits = 'pad'", "has no 'fits'; did you mean 'fit'?"),
        ("training = 3", "[training] in"),
        ("[concepts]\nphotos = 'a'", "begin each concept with [[concepts]]"),
        ("[[concepts]]\nname = 'a'", "Concept 1 in"),
        ("[[concepts]]\nphotos = 'a'\nnoun = 'dog'", "has no 'noun'"),
        ("[[concepts]]\nphotos = 3", "photos is no text"),
        ("[[concepts]]\nphotos = 'here/photos/sip'\ntraining = { stps = 1 }", "no setting 'stps'"),
        ("[[concepts]]\nphotos = 'a'\nnum_class_images = -1", "num_class_images is -1"),
        ("steps = = 1", "cannot be read"),
        ("", "add [[concepts]]"),
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(
    mnemon: Command, photos: Path, world_folder: Path, line: str | None, message: str
) -> None:
    if line is not None:
        shutil.copytree(photos, "here/photos")
        Path("bad.toml").write_text(line, encoding="utf-8")
    refused = mnemon("learn", "--config", "bad.toml", "--base", world_folder)
    if refused.code == 0 or "photos" in refused.err and message not in " ".join(refused.err.split()):
        refused = mnemon("learn", photos / "sip", "--config", "bad.toml", "--base", world_folder, "--no-score")
    assert refused.code == 1 and message in " ".join(refused.err.split())
    assert not Path("mnemon-library").exists()


def test_nothing_to_learn_is_said(mnemon: Command) -> None:
    refused = mnemon("learn")
    assert refused.code == 2 and "PHOTOS" in refused.err and "--config" in refused.err
    Path("empty.toml").write_text("", encoding="utf-8")
    refused = mnemon("learn", "--config", "empty.toml")
    assert refused.code == 1 and "'empty.toml' has none" in " ".join(refused.err.split())


@pytest.mark.parametrize("method", ["stamina", "cns", "fl2t"])
def test_comments_of_a_new_file_are_what_is_taken_without_them(
    mnemon: Command, method: str, world_folder: Path, tmp_path: Path
) -> None:
    made = mnemon("init", "photos/rex", "photos/tom", "--base", world_folder, "--method", method)
    assert made.code == 0 and mnemon("init").code == 1  # never written over
    plain = read_config(Path("concepts.toml"))
    assert [one.photos.name for one in plain.concepts] == ["rex", "tom"]
    text = Path("concepts.toml").read_text(encoding="utf-8")
    shown = re.sub(r"^# (\w+ = (?!\{))", r"\1", text.partition("[[concepts]]")[0], flags=re.MULTILINE)
    values = tomllib.loads(shown)
    assert method_from(method, {**values["settings"]}) == method_from(method)
    training = settings_from_json(TrainingSettings, values["training"], "it")
    made_method = method_from(method)
    assert training == TrainingSettings(steps=made_method.steps, batch_size=made_method.batch_size)
    assert values["photos"] == {"fit": "crop", "flip": False, "random_crop": False}


def test_a_new_file_shows_the_profile_of_a_large_base(monkeypatch: pytest.MonkeyPatch) -> None:
    from mnemon.models.profiles import PROFILES

    monkeypatch.setattr("mnemon.api.opening.profile_named", lambda name: PROFILES["sdxl"])
    text = config_text("/models/sdxl", "lora", ())
    assert "# learning_rate = 0.0001 " in text and "# token_lr = 0.0005 " in text
    assert (
        "# batch_size = 4 " in text and "# gradient_checkpointing = true " in text and "# max_grad_norm = 1.0 " in text
    )
    assert '# weights = "bf16"' in text and "# [[concepts]]" in text
