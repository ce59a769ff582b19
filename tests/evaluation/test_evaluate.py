"""A measured row: drawn with a small random base, all concepts in the model."""

import json

import pytest
import torch

from mnemon.adapters import LowRank
from mnemon.errors import MnemonError
from mnemon.evaluation.encoders import WorldEncoders, reference_features
from mnemon.evaluation.evaluate import evaluate
from mnemon.evaluation.matrix import matrix_from_rows
from mnemon.evaluation.prompts import PROMPTS, PromptSet
from mnemon.evaluation.settings import EvalSettings
from mnemon.methods import method_from
from mnemon.methods.base import TrainedConcept
from mnemon.sampling import Composed
from tests.evaluation.worlds import images, world_folder
from tests.tiny import tiny_sd_base

TINY = PromptSet(("a photo of {} on the beach", "{} in snow"), ("a red cat", "a blue mug", "a green dog"), ("in snow",))
IMAGES = 4


def measured_row(base, method, concepts, *more):
    with Composed(base, method, concepts) as composed:
        return evaluate(composed, *more).to_json()


@pytest.fixture(scope="module", autouse=True)
def settings():
    """Prompts of words the small base can read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROMPTS, "tiny", TINY)
        yield EvalSettings(IMAGES, num_inference_steps=2, batch_size=3)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    found = WorldEncoders(world_folder(tmp_path_factory.mktemp("world")))
    found.prompts = "tiny"
    return found


@pytest.fixture(scope="module")
def base():
    return tiny_sd_base()


def learned(base, name: str, class_noun: str | None, seed: int) -> TrainedConcept:
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        target: LowRank(
            torch.randn(layer.out_features, 2, generator=generator) / 4,
            torch.randn(2, layer.in_features, generator=generator) / 4,
        )
        for target, layer in base.target_modules().items()
    }
    return TrainedConcept(name, class_noun, deltas, {"text_encoder": torch.randn(1, 32, generator=generator)})


@pytest.fixture(scope="module")
def row(base, encoders, settings):
    concepts = [learned(base, "rex", "dog", 1), learned(base, "ink", None, 2)]
    references = {"rex": reference_features(encoders, images(3))}
    shown = {}

    def hear(name, some):
        shown[name] = some

    measured = measured_row(base, method_from("lora"), concepts, references, encoders, settings, hear)
    return measured, shown


def test_a_row_holds_every_concepts_scores_and_is_json(row):
    measured, _ = row
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    rex = measured["concepts"]["rex"]
    assert set(rex) == {
        "image_alignment", "identity_alignment", "text_alignment", "clip_score", "image_ceiling", "identity_ceiling",
        "references", "attributes",
    }  # fmt: skip
    assert all(-1 <= rex[f"{kind}_alignment"] <= 1 for kind in ("image", "identity", "text")) and rex["references"] == 3
    assert max(2.5 * rex["text_alignment"], 0) <= rex["clip_score"] + 1e-6 <= 2.5
    assert -1 <= measured["general"]["text_alignment"] <= 1
    assert measured["settings"]["steps"] == 2 and measured["encoders"] == "world"


def test_the_worlds_judge_checks_what_a_prompt_names(row):
    """The small judge has heads for nouns and colours; concepts' prompts name a noun and general ones both, or none."""
    measured, _ = row
    assert measured["concepts"]["rex"]["attributes"].keys() == {"noun"}
    assert measured["concepts"]["ink"]["attributes"] == {}
    assert measured["general"]["attributes"].keys() == {"noun", "colour"}


def test_a_concept_without_references_is_drawn_but_not_scored(row):
    measured, shown = row
    ink = measured["concepts"]["ink"]
    assert ink["identity_alignment"] is ink["image_alignment"] is ink["identity_ceiling"] is None
    assert ink["text_alignment"] is not None
    assert {name: len(some) for name, some in shown.items()} == {"rex": 4, "ink": 4, None: 3}


def test_measuring_again_gives_the_same_and_leaves_the_base_alone(base, encoders, settings):
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    concepts, method = [learned(base, "rex", "dog", 1)], method_from("lora")
    references = {"rex": reference_features(encoders, images(2))}
    first, second = (measured_row(base, method, concepts, references, encoders, settings) for _ in range(2))
    assert first == second
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.denoiser.state_dict().items())


def test_a_concepts_score_does_not_depend_on_which_others_are_drawn_first(base, encoders, settings):
    """Two concepts in either order of drawing, with the same sum of deltas in the model."""
    one, two = learned(base, "rex", "dog", 1), learned(base, "tom", "cat", 2)
    references = {"rex": reference_features(encoders, images(2))}
    orders, method = ([one, two], [two, one]), method_from("lora")
    rows = [measured_row(base, method, order, references, encoders, settings) for order in orders]
    scores = [row["concepts"]["rex"]["identity_alignment"] for row in rows]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_references_of_other_encoders_are_refused(base, encoders, settings):
    with pytest.raises(MnemonError, match="references of 'rex' have 7 numbers.*encoders give 32"):
        wrong = {"rex": {"image": torch.ones(2, 7)}}
        measured_row(base, method_from("lora"), [learned(base, "rex", "dog", 1)], wrong, encoders, settings)


def test_bad_settings_are_refused():
    with pytest.raises(MnemonError, match="at least 1"):
        EvalSettings(num_inference_steps=0)
    with pytest.raises(MnemonError, match="at least 1"):
        EvalSettings(num_images=0)
    with pytest.raises(MnemonError, match="'a mug' names no concept"):
        EvalSettings(templates=("a {}", "a mug"))


def test_rows_of_a_run_become_its_matrix(row):
    found = matrix_from_rows({2: row[0]}, "text_alignment")
    assert found.names == ("rex", "ink") and found.values.shape == (1, 2)
