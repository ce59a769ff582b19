import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mnemon.benchmark import Job, plan
from mnemon.evaluation import EvalSettings
from mnemon.world import style_concept, thing_concept

SMALL = {"steps": 2, "batch_size": 2}
Planned = Callable[..., list[Job]]


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder of concepts: a cat, an ink style and a mug; of the cat two photos are held out."""
    folder = tmp_path_factory.mktemp("concepts")
    thing_concept("cat", 9001, "cat").write(folder / "cat", 6, seed=1)
    style_concept("ink", 9002, "ink").write(folder / "ink", 2, seed=1)
    thing_concept("mug", 9003, "mug").write(folder / "mug", 2, seed=1)
    (folder / "nouns.json").write_text(json.dumps({"cat": "cat", "mug": "mug", "ink": None}))
    return folder


@pytest.fixture
def planned(tmp_path: Path, three: Path, world_folder: Path) -> Planned:
    """Jobs of two steps a concept on the stand-in base and those three concepts."""

    def make(methods: Sequence[str], out: str = "out", **options: Any) -> list[Job]:
        settings = {name: SMALL for name in methods}
        scoring = {"eval_settings": EvalSettings(2, num_inference_steps=1, batch_size=32), "eval_at": (2,)}
        asked = {"orders": 1, "seeds": 1, "settings": settings, "base": str(world_folder), **scoring}
        return plan(tmp_path / out, str(three), list(methods), **{**asked, **options})

    return make
