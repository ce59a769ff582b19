import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

import mnemon
from mnemon import api, tensor_files
from mnemon.api import learning, opening
from mnemon.data import Concept, Photo
from mnemon.errors import MnemonError, WriteError
from mnemon.evaluation import EvalSettings
from mnemon.library import Library
from mnemon.methods import Method
from mnemon.methods.lora import Lora
from mnemon.methods.lora_merge import LoraMerge
from mnemon.models import Base, load_base
from mnemon.tensor_files import write_safetensors
from mnemon.training import Examples, TrainingSettings, session
from mnemon.world import thing_concept

METHOD = Lora(rank=2, steps=2, batch_size=2)


@pytest.fixture(scope="module")
def base(world_folder: Path) -> Base:
    return load_base(str(world_folder))


@pytest.fixture(scope="module")
def sip() -> Concept:
    return thing_concept("sip", 201, "mug").photos(3, seed=1)


@pytest.fixture(scope="module")
def tom() -> Concept:
    return thing_concept("tom", 202, "cat").photos(2, seed=1)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the training loop is given: latents, prompts, prior."""
    calls: list[dict[str, Any]] = []
    train = session.train

    def listen(*arguments: Any, **more: Any) -> Any:
        (task,) = arguments[2]
        calls.append({**vars(task.examples), "prior": task.prior})
        return train(*arguments, **more)

    monkeypatch.setattr(session, "train", listen)
    return calls


def teach(path: Path, concept: Concept, base: Base, **more: Any) -> api.LearnResult:
    return api.learn(path, concept, base=base, method=METHOD, **{"scored": False, **more})


def test_the_five_lines(
    tmp_path: Path, sip: Concept, tom: Concept, base: Base, monkeypatch: pytest.MonkeyPatch, quick_scores: None
) -> None:
    monkeypatch.setattr(opening, "load_base", lambda name, *how: base)
    for concept in (sip, tom):
        mnemon.learn(tmp_path / "lib", concept, method=METHOD)
    images = mnemon.generate(
        tmp_path / "lib", "<sip> mug", num_images_per_prompt=2, num_inference_steps=2, out=tmp_path / "pictures"
    )
    assert images.shape == (2, 3, 16, 16) and images.min() >= 0 and images.max() <= 1
    matrix = mnemon.evaluate(tmp_path / "lib")
    assert matrix.names == ("sip", "tom") and matrix.values.shape == (2, 2)


def test_the_base_is_untouched_by_it_all(tmp_path: Path, sip: Concept, base: Base) -> None:
    before = {target: layer.weight.clone() for target, layer in base.target_modules().items()}
    bare = api.generate(None, "a mug", base=base, num_inference_steps=2)
    teach(tmp_path / "lib", sip, base)
    taught = api.generate(tmp_path / "lib", "a mug", base=base, num_inference_steps=2)
    assert all(torch.equal(layer.weight, before[target]) for target, layer in base.target_modules().items())
    assert dict(base.tokens) == {}
    assert torch.equal(bare, api.generate(None, "a mug", base=base, num_inference_steps=2)) and not torch.equal(
        bare, taught
    )


def test_captions_are_trained_on_with_the_noun(tmp_path: Path, sip: Concept, base: Base, trained: list[Any]) -> None:
    teach(tmp_path / "lib", sip, base)
    assert len(trained[0]["latents"]) == 3 and all("<sip> mug" in prompt for prompt in trained[0]["prompts"])


@pytest.mark.parametrize(("flip", "random_crop", "count"), [(True, False, 2), (False, True, 4), (True, True, 4)])
def test_flips_and_crops_give_variants_of_every_photo(
    tmp_path: Path, base: Base, trained: list[Any], flip: bool, random_crop: bool, count: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 80, 3), dtype=np.uint8)
    wide = Concept("tom", (Photo(Image.fromarray(noise), "", "", "<tom>"),) * 2)
    teach(tmp_path / "lib", wide, base, photos=api.PhotoSettings("crop", flip, random_crop))
    latents, prompts = trained[0]["latents"], trained[0]["prompts"]
    assert len(latents) == 2 * count and prompts == ["<tom>"] * 2 * count
    assert len(latents.flatten(1).unique(dim=0)) == (2 * count if random_crop else 2)


def test_prior_images_are_trained_on_apart(
    tmp_path: Path, sip: Concept, base: Base, trained: list[Any], quick_class_images: None
) -> None:
    teach(tmp_path / "lib", sip, base, num_class_images=2)
    prior = trained[0]["prior"]
    assert isinstance(prior, Examples) and list(prior.prompts) == ["a photo of a mug"] * 2
    assert len(trained[0]["latents"]) == 3
    style = Concept("ink", sip.photos)
    with pytest.raises(MnemonError, match="noun"):
        teach(tmp_path / "lib", style, base, num_class_images=2)


def test_missing_encoders_are_found_out_before_training(
    tmp_path: Path, sip: Concept, base: Base, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Base) -> None:
        raise MnemonError("no connection")

    monkeypatch.setattr(learning, "encoders_of", missing)
    with pytest.raises(MnemonError, match="no connection"):
        teach(tmp_path / "lib", sip, base, scored=True)
    assert not trained and not (tmp_path / "lib").exists()


def test_an_interrupted_first_concept_leaves_what_to_go_on_from(tmp_path: Path, sip: Concept, base: Base) -> None:
    def interrupt(done: int, *_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "lib", sip, base, training=TrainingSettings(checkpoint_seconds=0), on_step=interrupt)
    assert (tmp_path / "lib" / "training" / "sip" / "training.safetensors").exists()
    steps: list[int] = []
    teach(tmp_path / "lib", sip, base, on_step=lambda done, *_: steps.append(done))
    assert steps == [2]


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken("at 2"), MnemonError("at 2"), OSError(28, "at 2")], ids=lambda one: type(one))
def test_a_first_concept_that_fails_leaves_what_to_go_on_from(
    tmp_path: Path, sip: Concept, base: Base, error: Exception
) -> None:
    def fail(done: int, *_: object) -> None:
        if done == 2:
            raise error

    training = TrainingSettings(steps=3, checkpoint_seconds=0)
    with pytest.raises(type(error), match="at 2") as raised:
        teach(tmp_path / "lib", sip, base, training=training, on_step=fail)
    said = "\n".join(raised.value.__notes__)
    assert re.search(r"training is kept in .*training.safetensors: the same command goes on", said)
    assert "lib is kept, though it has no concept yet" in said
    steps: list[int] = []
    teach(tmp_path / "lib", sip, base, training=training, on_step=lambda done, *_: steps.append(done))
    assert steps == [3] and not list((tmp_path / "lib" / "training").iterdir())


def test_a_first_concept_that_fails_before_anything_is_kept_leaves_nothing(
    tmp_path: Path, sip: Concept, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Broken

    monkeypatch.setattr("mnemon.training.session.make_tasks", fail)
    with pytest.raises(Broken):
        teach(tmp_path / "lib", sip, base)
    assert not (tmp_path / "lib").exists()


def test_a_run_that_is_ended_between_two_steps_loses_none(tmp_path: Path, sip: Concept, base: Base) -> None:
    def end(done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    training = TrainingSettings(steps=3)  # the next checkpoint by the clock would come after the end
    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "lib", sip, base, training=training, on_step=end)
    steps: list[int] = []
    teach(tmp_path / "lib", sip, base, training=training, on_step=lambda done, *_: steps.append(done))
    assert steps == [3]


def full_disk(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """No room for tensors in folders of this name; what safetensors raises is no OSError."""
    save = tensor_files.save_file

    def limited(tensors: Any, path: str, metadata: Any) -> None:
        if folder in Path(path).parts:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save(tensors, path, metadata=metadata)

    monkeypatch.setattr(tensor_files, "save_file", limited)


def test_a_commit_that_cannot_be_written_keeps_the_training(
    tmp_path: Path, sip: Concept, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, "concepts")
        with pytest.raises(MnemonError, match=r"deltas.safetensors' could not be written .*No space left") as raised:
            teach(tmp_path / "lib", sip, base)
    assert "the same command goes on" in raised.value.__notes__[0]
    steps: list[int] = []
    teach(tmp_path / "lib", sip, base, on_step=lambda done, *_: steps.append(done))
    assert not steps and Library.open(tmp_path / "lib").names() == ["sip"]


def test_scores_that_cannot_be_written_keep_the_concept(
    tmp_path: Path, sip: Concept, base: Base, monkeypatch: pytest.MonkeyPatch, quick_scores: None
) -> None:
    def fail(*_: object) -> None:
        raise WriteError("no room")

    monkeypatch.setattr(Library, "write_row", fail)
    with pytest.raises(MnemonError, match="no room") as raised:
        teach(tmp_path / "lib", sip, base, scored=True)
    assert "is in the library" in raised.value.__notes__[0] and "mnemon evaluate" in raised.value.__notes__[0]
    assert Library.open(tmp_path / "lib").names() == ["sip"]


@pytest.mark.parametrize("method", [METHOD, LoraMerge(rank=2, steps=2, batch_size=2)], ids=["lora", "lora-merge"])
def test_a_killed_run_survives_the_commit_of_another_concept(
    tmp_path: Path, sip: Concept, tom: Concept, base: Base, method: Method, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(done: int, *_: object) -> None:
        raise KeyboardInterrupt

    path, steps = tmp_path / "lib", list[int]()
    call = partial(api.learn, path, base=base, method=method, scored=False)
    with pytest.raises(KeyboardInterrupt):
        call(sip, training=TrainingSettings(checkpoint_seconds=0), on_step=interrupt)
    call(tom)
    assert [file.name for file in (path / "training").rglob("*.*")] == ["training.safetensors"]
    call(sip, on_step=lambda done, *_: steps.append(done))
    assert Library.open(path).names() == ["tom", "sip"] and not list((path / "training").iterdir())
    if method.independent:  # what it learns of sip has nothing to do with tom
        assert steps == [2] and not caplog.text
    else:
        assert steps == [1, 2] and "another run: earlier concept tom none then" in caplog.text


def test_a_checkpoint_of_an_earlier_version_is_named(
    tmp_path: Path, sip: Concept, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "lib" / "training" / "sip" / "training.safetensors"
    identity = {"base": base.fingerprint, "method": "lora", "version of mnemon": "2"}
    write_safetensors(old, {}, {"facts": json.dumps({"step": 1, "identity": identity})})
    Library.create(tmp_path / "new", base, METHOD)
    (tmp_path / "new" / "library.json").rename(tmp_path / "lib" / "library.json")
    teach(tmp_path / "lib", sip, base)
    assert "another run: format of checkpoints none then, 3 now" in caplog.text
    assert not list((tmp_path / "lib" / "training").iterdir())


def test_a_second_writer_is_refused(tmp_path: Path, sip: Concept, tom: Concept, base: Base) -> None:
    path = tmp_path / "lib"
    teach(path, sip, base)
    with Library.open(path).lock(), pytest.raises(MnemonError, match="being written by process"):
        teach(path, tom, base)
    assert Library.open(path).names() == ["sip"]


def test_a_base_in_a_folder_is_remembered_by_its_whole_path(
    tmp_path: Path, sip: Concept, world_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world_folder.parent)
    api.learn(tmp_path / "lib", sip, base=world_folder.name, method=METHOD, scored=False)
    assert Library.open(tmp_path / "lib").base_name == str(world_folder)


def test_evaluate_tells_its_states_and_images(
    tmp_path: Path, sip: Concept, tom: Concept, base: Base, few_control_prompts: None
) -> None:
    path, states, heard = tmp_path / "lib", [], []

    def hear(state: int, name: str | None, images: Tensor) -> None:
        heard.append((state, name))

    for concept in (sip, tom):
        teach(path, concept, base)
    score = EvalSettings(num_images=2, num_inference_steps=1)
    matrix = api.evaluate(path, base=base, score=score, on_revision=lambda *call: states.append(call), on_images=hear)
    assert states == [(1, 2), (2, 2)]
    assert heard == [(1, "sip"), (1, None), (2, "sip"), (2, "tom"), (2, None)]
    assert matrix.values.shape == (2, 2) and matrix.values[0, 0] != matrix.values[0, 0]  # learned without references
