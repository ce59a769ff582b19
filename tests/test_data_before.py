"""A library from before the settings were renamed opens, generates the same images, and learns one more concept."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mnemon import api
from mnemon.library import Library
from mnemon.methods import method_from, method_settings
from mnemon.methods.stamina import Stamina
from mnemon.models import Base, load_base
from mnemon.training import TrainingSettings
from mnemon.world import thing_concept
from tests.cli.conftest import Command, mnemon, opened_once  # noqa: F401 (fixtures)

DATA = Path(__file__).parent / "data_before"
RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("world")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "library", tmp_path / "library"))


def test_settings_come_over_under_their_new_names(library: Path) -> None:
    method = Library.open(library).method
    assert isinstance(method, Stamina)
    assert (method.rank, method.mask_rank, method.token_hidden, method.steps) == (1, 1, 8, 4)
    assert (method.learning_rate, method.token_lr, method.mask_lr) == (2e-3, 4e-3, 2e-2)
    assert (method.num_vectors, method.use_class_noun, method.batch_size) == (2, True, 2)


def test_history_and_scores_are_read(library: Path) -> None:
    opened = Library.open(library)
    assert opened.revision == 2 and opened.base_name == "world"
    learned = [(entry.action, entry.concept, entry.class_noun) for entry in opened.history()]
    assert learned == [("learn", "sip", "mug"), ("learn", "tom", "cat")]
    assert opened.rows().keys() == {1, 2} and opened.rows()[2]["concepts"].keys() == {"sip", "tom"}
    assert opened.all_references().keys() == {"sip", "tom"}
    assert Library.open(library, at=1).names() == ["sip"]


def test_the_same_images_are_generated(library: Path, base: Base) -> None:
    before, prompts = (
        load_file(DATA / "images.safetensors"),
        ["a photo of <sip> mug on the beach", "<tom> cat and <sip> mug"],
    )
    for revision, images in ((2, before["revision 2"]), (1, before["revision 1"])):
        opened = Library.open(library, at=revision)
        again = api.generate(
            opened, prompts[: len(images)], base=base, seed=3, guidance_scale=3.0, num_inference_steps=4
        )
        torch.testing.assert_close(again, images.float(), atol=1e-3, rtol=0)


def test_one_more_concept_is_learned_onto_it(library: Path, base: Base) -> None:
    concept = thing_concept("dot", 203).photos(2, seed=1)
    result = api.learn(library, concept, base=base, training=TrainingSettings(steps=1), scored=False)
    opened = Library.open(library)
    assert result.revision == opened.revision == 3 and opened.names() == ["sip", "tom", "dot"]
    assert opened.learned()[-1].deltas and opened.method == Library.open(library, at=2).method


@pytest.mark.parametrize("arguments", ["list", "list --at 1", "show", "show sip"])
def test_commands_print_the_json_of_before(library: Path, mnemon: Command, arguments: str) -> None:  # noqa: F811
    printed = json.loads((DATA / "command.json").read_text())[arguments]
    assert mnemon(*arguments.split(), "--library", library, "--json").json == printed


@pytest.mark.parametrize("method", ["stamina", "fl2t", "replay"])
def test_the_settings_of_a_finished_benchmark_job_are_read(method: str) -> None:
    job = json.loads((RESULTS / "world-10" / method / "order-0-seed-0" / "job.json").read_text())
    made = method_from(job["method"], job["settings"])
    assert made.name == method and method_from(method, method_settings(made)) == made
    assert made.batch_size == job["settings"]["batch"]
