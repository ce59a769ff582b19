"""PNG files that say how they were made."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mnemon import generate
from mnemon.errors import MnemonError
from mnemon.models import Base
from mnemon.sampling import ImageMetadata, read_metadata, save_image, to_image
from tests.tiny import tiny_sd_base
from tests.tiny_transformers import tiny_base

FACTS = ImageMetadata(
    prompt="a photo of <rex> dog, très beau 犬\nin snow",
    negative_prompt="blurry",
    seed=2**40,
    guidance_scale=4.5,
    num_inference_steps=30,
    base="world",
    library="my-library",
    revision=3,
    concepts=("rex", "mia"),
    sampler="DDIM",
)


def test_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rex.png"
    save_image(path, torch.rand(3, 8, 16), FACTS)
    assert read_metadata(path) == FACTS
    assert [entry.name for entry in path.parent.iterdir()] == ["rex.png"]


def test_other_tools_find_the_parameters(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", torch.rand(3, 8, 16), FACTS)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        text = image.info["parameters"]
    assert text.startswith(FACTS.prompt + "\nNegative prompt: blurry\nSteps: 30, Sampler: DDIM, ")
    assert f"CFG scale: 4.5, Seed: {2**40}, Size: 16x8, Model: world" in text


@pytest.mark.parametrize(("base", "sampler"), [(tiny_sd_base, "DDIM"), (partial(tiny_base, "sd3"), "Euler")])
def test_the_sampler_is_the_one_that_draws(base: Callable[[], Base], sampler: str, tmp_path: Path) -> None:
    generate(None, "a dog", base=base(), num_inference_steps=2, out=tmp_path)
    assert read_metadata(tmp_path / "00000.png").sampler == sampler
    with Image.open(tmp_path / "00000.png") as image:
        image.load()
        assert f"Steps: 2, Sampler: {sampler}, CFG scale: 4, " in image.info["parameters"]


def stored_in(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        image.load()
        return json.loads(image.info["mnemon"])


def test_keys_in_the_file_are_those_of_every_version(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", torch.rand(3, 4, 4), FACTS)
    assert set(stored_in(tmp_path / "a.png")) == {
        "prompt", "seed", "guidance", "steps", "base", "negative", "library", "state", "concepts", "regions", "sampler",
        "apart",
    }  # fmt: skip


def test_images_of_before_the_sampler_was_noted_are_read(tmp_path: Path) -> None:
    save_image(tmp_path / "new.png", torch.rand(3, 4, 4), FACTS)
    old, info = stored_in(tmp_path / "new.png"), PngInfo()
    assert old.pop("sampler") == "DDIM"
    info.add_text("mnemon", json.dumps(old))
    Image.new("RGB", (4, 4)).save(tmp_path / "old.png", pnginfo=info)
    assert read_metadata(tmp_path / "old.png") == replace(FACTS, sampler="")


def test_the_json_is_a_plain_text_chunk(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", torch.rand(3, 8, 8), FACTS)
    assert b"tEXtmnemon\x00{" in (tmp_path / "a.png").read_bytes()


def test_pixels_are_rounded_not_cut(tmp_path: Path) -> None:
    image = torch.arange(3 * 8 * 8).reshape(3, 8, 8) / 191
    save_image(tmp_path / "a.png", image, FACTS)
    with Image.open(tmp_path / "a.png") as png:
        assert png.mode == "RGB" and png.tobytes() == to_image(image).tobytes()
    assert to_image(torch.full((3, 1, 1), 0.999)).getpixel((0, 0)) == (255, 255, 255)


def test_images_that_say_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(MnemonError, match="no image.*missing.png"):
        read_metadata(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(MnemonError, match="text.png' cannot be read"):
        read_metadata(tmp_path / "text.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(MnemonError, match="plain.png' does not say"):
        read_metadata(tmp_path / "plain.png")
