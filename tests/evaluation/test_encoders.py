"""Encoders in their real folder layout, with small random weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from mnemon.errors import MnemonError
from mnemon.evaluation.encoders import HubEncoders, WorldEncoders, encoders_for, reference_features
from tests.evaluation.worlds import hub_folders, images, world_folder

WORDS = ["a dog on the beach", "a red cat", ""]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return WorldEncoders(world_folder(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return HubEncoders(*hub_folders(tmp_path_factory.mktemp("hub")))


@pytest.fixture(params=["world", "hub"])
def encoders(request):
    return request.getfixturevalue(request.param)


def unit(features: torch.Tensor) -> bool:
    return torch.allclose(features.norm(dim=-1), torch.ones(len(features)), atol=1e-5)


def test_features_are_unit_vectors_in_fp32(encoders):
    shown, said = encoders.image(images(3)), encoders.text(WORDS)
    assert shown.shape == said.shape  # images and prompts compare
    for features in (shown, said, encoders.identity(images(3))):
        assert unit(features) and features.dtype == torch.float32 and not features.requires_grad


def test_a_image_does_not_depend_on_its_batch(encoders):
    many = images(70)
    for encode in (encoders.image, encoders.identity):
        torch.testing.assert_close(encode(many)[66:67], encode(many[66:67]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoders.text(WORDS)[1:2], encoders.text(WORDS[1:2]), atol=1e-5, rtol=1e-5)


def test_images_of_any_size_are_cropped_to_the_middle_square(encoders):
    square = images(2, 128, 128)
    margin = torch.zeros(2, 3, 128, 30)
    wide = torch.cat([margin, square, margin], dim=-1)
    torch.testing.assert_close(encoders.image(wide), encoders.image(square))


def test_what_the_text_says_matters(encoders):
    features = encoders.text(["a dog on the beach", "a dog on the snow"])
    assert not torch.allclose(features[0], features[1])


def test_judge_says_attributes(world):
    logits = world.attributes(images(70))
    assert {head: tuple(values.shape) for head, values in logits.items()} == {"noun": (70, 12), "colour": (70, 10)}


def test_reference_features_are_what_measuring_wants(world):
    features = reference_features(world, images(3))
    assert {kind: tuple(values.shape) for kind, values in features.items()} == {"image": (3, 32), "identity": (3, 32)}


def test_the_base_decides_which_encoders_suit(world, tmp_path):
    assert isinstance(encoders_for(world._folder), WorldEncoders)
    assert isinstance(encoders_for(tmp_path), HubEncoders)
    assert isinstance(encoders_for(None), HubEncoders)


def test_missing_encoders_are_named(tmp_path):
    with pytest.raises(MnemonError, match="holds no encoders"):
        WorldEncoders(tmp_path)
    with pytest.raises(MnemonError, match="nowhere/clip.*cannot be loaded"):
        HubEncoders(clip=str(tmp_path / "nowhere/clip")).image(images(1))


def test_pickled_weights_are_refused_and_load_once_converted(tmp_path):
    clip, dino = map(Path, hub_folders(tmp_path))
    weights = load_file(dino / "model.safetensors")
    (dino / "model.safetensors").unlink()
    torch.save(weights, dino / "pytorch_model.bin")
    with pytest.raises(MnemonError, match=r"no safetensors weights.*use_safetensors=False\).save_pretrained"):
        HubEncoders(str(clip), str(dino)).identity(images(1))
    AutoModel.from_pretrained(dino, use_safetensors=False).save_pretrained(dino)
    assert unit(HubEncoders(str(clip), str(dino)).identity(images(1)))


def test_the_worlds_encoders_are_opened_without_a_progress_bar(world, capfd):
    WorldEncoders(world._folder).text(WORDS)
    assert capfd.readouterr().err == ""
