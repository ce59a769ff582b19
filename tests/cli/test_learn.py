import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from mnemon.cli.printing import Bar, progress, stopping_between_steps
from mnemon.library import Library
from mnemon.sampling import SamplingSettings
from mnemon.training import session
from tests.cli.conftest import Command


def image(path: Path, size: tuple[int, int] = (20, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_first_call_makes_a_library_and_the_next_adds_to_it(teach: Command) -> None:
    first = teach("--noun", "mug", "--library", "lib")
    assert first.code == 0
    assert "<sip> learned" in first.out and "revision 1" in first.out and "training photos" in first.out
    assert "Loading" not in first.err and "[transformers]" not in first.err
    second = teach("--noun", "cat", "--library", "lib", source="tom")
    assert second.code == 0
    assert all(name in second.out for name in ("sip", "tom"))
    assert Library.open("lib").names() == ["sip", "tom"]
    assert max(map(len, second.out.splitlines())) <= 80


def test_after_learning_it_says_what_was_kept_and_what_to_type_next(teach: Command) -> None:
    first = teach("--noun", "mug").out
    assert "Next: mnemon generate 'a photo of <sip> mug'\n" in first and "of what its photos reach" in first
    second = teach("--noun", "cat", "--library", "mnemon-library", source="tom").out
    then, now = (row["concepts"]["sip"]["identity_alignment"] for row in Library.open("mnemon-library").rows().values())
    assert f"sip kept {max(now, 0) / then:.0%}".replace("%", " %") in second
    (line,) = [line for line in second.splitlines() if line.startswith("sip  ")]
    assert line.split()[1:4] == [f"{then:.3f}", f"{now:.3f}", f"{now - then:+.3f}"]


def test_an_interrupt_between_steps_is_kept_for_the_end_of_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with progress("learning") as bar, pytest.raises(KeyboardInterrupt), stopping_between_steps(bar) as on_step:
            on_step(1, 3, {})
            os.kill(os.getpid(), signal.SIGINT)
            assert "Stopping after this step" in capsys.readouterr().err
            on_step(2, 3, {})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_after_an_interrupt_the_same_command_goes_on(teach: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def interrupt(self: Bar, done: int, total: int, logs: object) -> None:
        steps.append(done)
        if len(steps) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "__call__", interrupt)
    monkeypatch.setattr(Bar, "count", lambda *_: None)
    result = teach("--noun", "mug", "--no-score")
    assert result.code == 130 and "The steps taken are kept: the same command goes on" in result.err
    assert teach("--noun", "mug", "--no-score").code == 0
    assert steps == [1, 2]


def test_json_is_the_one_thing_on_standard_output(teach: Command) -> None:
    value = teach("--noun", "mug", "--json").json
    assert value["concept"] == "sip" and value["state"] == 1
    assert value["row"]["concepts"]["sip"]["references"] == 3
    seconds = {"training_seconds", "fusion_seconds", "scoring_seconds"}
    assert value.keys() == {"concept", "state", "row", "until", "photos", "references", *seconds}
    assert value["until"] is None and value["references"] is None
    read = {"photos": 3, "captions": 3, "masks": 0, "passed_over": {}, "notes": []}
    assert {key: said for key, said in value["photos"].items() if key != "source"} == read


def test_without_scores_there_is_no_row(teach: Command) -> None:
    assert teach("--no-score", "--json").json["row"] is None
    assert Library.open("mnemon-library").rows() == {}


def test_references_held_out_are_said_to_be(teach: Command, photos: Path) -> None:
    result = teach("--references", photos / "tom", "--noun", "mug")
    # the photos of tom have captions that name <tom>
    assert result.code == 1 and "<sip>" in result.err
    for file in (photos / "tom").glob("*.png"):
        shutil.copy(file, image(Path("others") / file.name))
    assert "held-out photos" in teach("--references", "others").out
    library = Library.open("mnemon-library")
    assert library.history()[0].settings["held_out"] is True
    assert len(library.history()[0].photos) == 3


def test_references_that_are_trained_on_are_no_references(teach: Command, photos: Path) -> None:
    refused = teach("--references", photos / "sip", "--noun", "mug")
    assert refused.code == 1 and "are photos that it is trained on: give others" in refused.err
    assert not Path("mnemon-library").exists()
    shutil.copytree(photos / "sip", "mixed")
    (Path("mixed") / "00.png").rename("mixed/renamed.png")
    (Path("mixed") / "00.txt").unlink()
    image(Path("mixed/other.png"))
    result = teach("--references", "mixed", "--noun", "mug", "--json")
    assert "trained on are left out: 01.png, 02.png, renamed.png (3)" in result.err
    assert result.json["row"]["concepts"]["sip"]["references"] == 1
    assert result.json["references"]["photos"] == 4


def test_copies_of_a_photo_are_said_and_not_compared(teach: Command, photos: Path) -> None:
    for name in ("a", "b", "c"):
        image(Path("sip2") / "x.png")
        shutil.copy("sip2/x.png", f"sip2/{name}.png")
    result = teach("--noun", "mug", source=Path("sip2").resolve())
    assert "copies, trained on again but scored against once: b.png (of a.png), c.png" in result.err
    assert "–" in result.out.splitlines()[3]  # no ceiling of a single photo


def test_what_is_passed_over_is_said_once_and_in_json(teach: Command, photos: Path) -> None:
    folder = Path("sip").resolve()
    shutil.copytree(photos / "sip", folder)
    (folder / ".DS_Store").touch()
    image(folder / "00-masklabel.png", (64, 64))
    result = teach("--noun", "mug", "--no-score", "--json", source=folder)
    assert result.err.count("passed over, hidden: .DS_Store (1)") == 1
    assert result.err.count("3 photos, 3 captions, 1 mask (used with --masked-loss only).") == 1
    assert result.json["photos"]["passed_over"] == {"hidden": [".DS_Store"]}


def test_a_masked_loss_trains_on_masks_and_is_kept(teach: Command, photos: Path) -> None:
    refused = teach("--noun", "mug", "--no-score", "--masked-loss")
    assert refused.code == 1 and "needs masks" in refused.err
    folder = Path("sip").resolve()
    shutil.copytree(photos / "sip", folder)
    image(folder / "mask" / "00.png", (64, 64))
    assert teach("--noun", "mug", "--no-score", "--masked-loss", source=folder).code == 0
    assert Library.open("mnemon-library").history()[0].settings["training"]["masked_loss"] is True


def test_a_caption_that_is_too_long_stops_before_the_first_step(teach: Command, photos: Path) -> None:
    folder = Path("sip").resolve()
    shutil.copytree(photos / "sip", folder)
    (folder / "02.txt").write_text(f"{'on the grass ' * 30} a photo of <sip>")
    result = teach("--noun", "mug", "--no-score", source=folder)
    assert result.code == 1 and "02.txt': The prompt" in result.err and "shorten it" in result.err


def test_a_taken_name_leaves_the_library_as_it_was(teach: Command) -> None:
    teach("--no-score")
    before = everything(Path("mnemon-library"))
    result = teach()
    assert result.code == 1
    assert "already has a concept 'sip'" in result.err and "Traceback" not in result.err
    assert everything(Path("mnemon-library")) == before


def test_a_library_keeps_its_base_method_and_settings(teach: Command, world_folder: Path, tmp_path: Path) -> None:
    teach("--no-score", "--method", "lora")
    other = tmp_path / "other"
    shutil.copytree(world_folder, other)
    weights = other / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(weights).items()}, weights)
    more = {"source": "tom"}
    assert "was made on the base" in teach(base=other, **more).err
    assert "'lora', not 'stamina'" in teach("--method", "stamina", **more).err
    assert "rank=2, not rank=4" in teach("--set", "rank=4", **more).err
    assert "no base" in teach(base="nowhere", **more).err
    assert Library.open("mnemon-library").names() == ["sip"]
    assert teach("--no-score", **more).code == 0  # the same settings again are no others


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rnk=4", "did you mean 'rank'"),
        ("rank", "--set rank=8"),
        ("rank=many", "expected a whole number"),
        ("rank=0", "more than 0"),
        ("=4", "no setting ''"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_made(teach: Command, setting: str, message: str) -> None:
    result = teach("--set", setting)
    assert result.code == 1 and message in result.err
    assert not Path("mnemon-library").exists()


def make_bad(kind: str, folder: Path) -> None:
    good = image(folder / "a.png")
    if kind == "empty folder":
        good.unlink()
    elif kind == "truncated":
        (folder / "b.png").write_bytes(good.read_bytes()[:300])
    elif kind == "zero bytes":
        (folder / "b.png").touch()
    elif kind == "text named .jpg":
        (folder / "b.jpg").write_text("not an image")
    elif kind == "caption without the token":
        (folder / "a.txt").write_text("a photo of my mug")
    elif kind == "huge":
        Image.new("1", (9000, 9000)).save(folder / "b.png")


BAD = {
    "empty folder": "is empty",
    "truncated": "truncated or damaged",
    "zero bytes": "0 bytes",
    "text named .jpg": "no readable JPEG",
    "caption without the token": "does not name the concept",
    "huge": "more pixels than the limit",
}


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_photo_is_named_and_no_library_is_made(teach: Command, tmp_path: Path, kind: str) -> None:
    make_bad(kind, tmp_path / "rex")
    result = teach(source=tmp_path / "rex")
    assert result.code == 1 and BAD[kind] in " ".join(result.err.split())
    assert "rex" in result.err and "Traceback" not in result.err
    assert not Path("mnemon-library").exists()


@pytest.mark.parametrize("name", ["Rex", "../rex", "", "1st", "a" * 41])
def test_a_bad_name_is_refused(teach: Command, name: str) -> None:
    result = teach("--name", name or " ")
    assert result.code == 1 and "cannot name a concept" in result.err
    assert not Path("mnemon-library").exists()


@pytest.mark.parametrize("arguments", [("--prior", 2), ("--precision", "fp16"), ("--fit", "pad", "--random-crop")])
def test_a_first_concept_that_fails_leaves_no_library(teach: Command, arguments: tuple[object, ...]) -> None:
    assert teach(*arguments).code == 1
    assert not Path("mnemon-library").exists()


def test_a_failure_takes_nothing_away_that_was_there(teach: Command) -> None:
    Path("lib").mkdir()
    Path("lib/.hidden").touch()
    assert teach("--prior", 2, "--library", "lib").code == 1
    assert [file.name for file in Path("lib").iterdir()] == [".hidden"]
    teach("--no-score")
    before = everything(Path("mnemon-library"))
    assert teach("--prior", 2, source="tom").code == 1
    assert everything(Path("mnemon-library")) == before


def test_a_single_image_is_no_folder(teach: Command) -> None:
    result = teach(source="sip/00.png")
    assert result.code == 1 and "is a file, not a folder" in result.err


def listing(photos: Path, path: Path) -> Path:
    entries = [
        {
            "instance_prompt": f"a <{name}> {class_noun}",
            "class_prompt": class_noun,
            "instance_data_dir": str(photos / name),
        }
        for name, class_noun in (("sip", "mug"), ("tom", "cat"))
    ]
    path.write_text(json.dumps(entries))
    return path


def test_a_list_file_goes_on_after_what_is_known(teach: Command, photos: Path, tmp_path: Path) -> None:
    file = listing(photos, tmp_path / "concepts.json")
    teach("--no-score", "--noun", "mug")
    result = teach("--no-score", "--json", source=file)
    assert [one["concept"] for one in result.json] == ["tom"]
    assert "passed over" in result.err
    assert [entry.class_noun for entry in Library.open("mnemon-library").history()] == ["mug", "cat"]
    assert teach("--no-score", "--json", source=file).json == []


def test_a_list_file_names_its_concepts_itself(teach: Command, photos: Path, tmp_path: Path) -> None:
    result = teach("--noun", "mug", source=listing(photos, tmp_path / "concepts.json"))
    assert result.code == 1 and "leave out" in result.err


DIFFUSERS = (
    "--num-class-images",
    "--class-noun",
    "--snr-gamma",
    "--gradient-accumulation-steps",
    "--gradient-checkpointing",
)
SHORT = ("--prior", "--noun", "--min-snr", "--accumulate", "--checkpointing")


@pytest.mark.parametrize("names", [DIFFUSERS, SHORT], ids=["diffusers", "short"])
def test_options_of_training_reach_it(
    teach: Command, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, quick_class_images: None
) -> None:
    monkeypatch.setattr(session, "PREVIEW", SamplingSettings(num_inference_steps=2))
    prior, noun, snr, parts, checkpointing = names
    arguments = ("--flip", "--random-crop", prior, 2, noun, "mug", "--preview-every", 1, snr, 5)
    assert teach(*arguments, parts, 2, checkpointing, "--seed", 3, "--no-score").code == 0
    kept = Library.open("mnemon-library").history()[0].settings["training"]
    assert (kept["seed"], kept["snr_gamma"], kept["gradient_accumulation_steps"], kept["steps"]) == (3, 5, 2, 2)
    previews = sorted(file.name for file in Path("mnemon-library/previews/sip").iterdir())
    assert previews == [f"step-{step:05d}-{seed}.png" for step in (1, 2) for seed in range(4)]


def test_the_captions_of_a_whole_list_are_checked_before_the_first_step(
    teach: Command, photos: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(photos, tmp_path / "own"))  # other tests read the originals
    file = listing(photos, tmp_path / "concepts.json")
    (next((photos / "tom").glob("*.txt"))).write_text(" ".join(["long"] * 100) + " <tom>")
    result = teach("--no-score", "--together", 1, source=file)
    assert result.code == 1 and "The caption in" in result.err and "shorten it" in result.err
    assert not Path("mnemon-library").exists()


def test_captions_are_checked_before_class_images_are_drawn(
    teach: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("mnemon.training.tasks.class_images", lambda *_, **__: drawn.append(1))
    own = Path(shutil.copytree(photos / "sip", "sip")).resolve()  # other tests read the originals
    next(own.glob("*.txt")).write_text(" ".join(["long"] * 100) + " <sip>")
    result = teach("--noun", "mug", "--no-score", "--num-class-images", 2, source=own)
    assert result.code == 1 and "shorten it" in result.err and not drawn
