"""The built-in backbone: it comes with mnemon, is used where no other is named, and its recipe resumes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon.classification import ClassLibrary, learn_classes, load_backbone, predict, read_task
from mnemon.errors import MnemonError
from mnemon.world import backbone_folder
from mnemon.world.recipe import backbone as recipe
from mnemon.world.recipe import fit
from mnemon.world.recipe import images as rendering
from mnemon.world.recipe.backbone import GATES, NAMED, Recipe, build
from tests.classification.small import example

TINY = Recipe(images=16, held_out=8, steps=4, batch=4, width=16, layers=1, heads=2, side=16)


def test_it_is_small_has_a_card_and_passed_its_gates() -> None:
    folder = backbone_folder()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 8e6
    facts = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert facts["recipe"]["seed"] == Recipe.seed and facts["figures"].keys() == GATES.keys()
    card = (folder / "README.md").read_text(encoding="utf-8")
    for name, gate in GATES.items():
        assert facts["figures"][name] >= gate
        assert f"| {facts['figures'][name]:.1%} |" in card


def test_its_features_tell_colours_apart(tmp_path: Path) -> None:
    held_out = rendering.plain(tmp_path, 77, 200)
    on = load_backbone("world")
    edge = (64 - on.image_size) // 2
    images = rendering.to_input(held_out.pixels)[:, :, edge:-edge, edge:-edge]
    with torch.no_grad():
        found = torch.nn.functional.normalize(on.features(images), dim=1)
    near = (found @ found.T).fill_diagonal_(-2).argmax(1)
    colour = held_out.labels["colour"]
    assert (colour[near] == colour).float().mean() > 0.5  # chance: 0.1


def test_a_library_without_a_backbone_named_has_the_built_in_one(tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    for label in range(2):
        (folder / f"class-{label}").mkdir(parents=True)
        for number in range(2):
            example(label, number).image.save(folder / f"class-{label}" / f"{number}.png")
    library = tmp_path / "guide"
    learn_classes(library, read_task(folder), method="nearest-mean")
    assert ClassLibrary.open(library).base_name == "world"
    (found,) = predict(library, [folder / "class-1" / "0.png"])
    assert found["classes"] == ["class-1"]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file of weights of a build in a folder, without gates; `stop` cuts it after so many steps."""
    monkeypatch.setattr(recipe, "GATES", {name: 0.0 for name in NAMED})

    def made(name: str, stop: int = 99) -> bytes:
        steps = iter(range(stop))
        cropped = recipe._cropped

        def counted(*given: Any) -> torch.Tensor:
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return cropped(*given)

        work = tmp_path / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipe, "_cropped", counted)
            patch.setattr(recipe, "fit", lambda *given, **more: fit.fit(*given, **more, checkpoint_seconds=0.0))
            build(tmp_path / name, work, TINY)
        return (tmp_path / name / "model.safetensors").read_bytes()

    return made


def test_the_recipe_goes_on_after_a_kill_to_the_same_weights(weights: Any, tmp_path: Path) -> None:
    whole = weights("whole")
    with pytest.raises(KeyboardInterrupt):
        weights("cut", stop=2)
    assert weights("cut", stop=2) == whole  # the two steps that were left
    assert load_backbone(str(tmp_path / "cut")).width == 16


def test_a_backbone_that_misses_a_gate_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "GATES", {"noun": 1.01})
    (tmp_path / "work").mkdir()
    with pytest.raises(MnemonError, match="names 'noun' right in .* only: train it for longer"):
        build(tmp_path / "out", tmp_path / "work", TINY)
    assert not (tmp_path / "out").exists()
