from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnemon import api
from mnemon.methods.lora import Lora
from mnemon.models import load_base
from mnemon.training import TrainingSettings
from mnemon.web.workspace import Workspace
from mnemon.world import thing_concept


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (80, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [photo(tmp_path / "dropped" / f"{number}.png", number) for number in range(5)]


@pytest.fixture
def workspace(tmp_path: Path, world_folder: Path) -> Workspace:
    """Of a library that is not there yet."""
    return Workspace(tmp_path / "lib", str(world_folder), "lora")


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, world_folder: Path) -> Path:
    """A library of two concepts; to be copied before it is changed."""
    path, base = tmp_path_factory.mktemp("taught") / "lib", load_base(str(world_folder))
    training = TrainingSettings(steps=1, batch_size=1)
    for name, seed, noun in (("sip", 201, "mug"), ("tom", 202, "cat")):
        concept = thing_concept(name, seed, noun).photos(2, seed=1)
        api.learn(path, concept, base=base, method=Lora(rank=2), training=training, scored=False)
    return path


@pytest.fixture
def known(tmp_path: Path, taught: Path) -> Iterator[Workspace]:
    """Of a library of <sip> mug and <tom> cat."""
    import shutil

    shutil.copytree(taught, tmp_path / "known")
    yield Workspace(tmp_path / "known")
