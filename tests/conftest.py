"""What every test shares: nothing is fetched, nothing outlives a test, one thread is enough."""

import gc
import os
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that workers do not fight for cores
# What pytest's `pythonpath` is to this process, for those that it starts.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the tiny random bases are, e.g. cuda")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["MNEMON_TEST_DEVICE"] = config.getoption("--device")  # processes that tests start read it too


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported by now is no garbage, and need not be looked through again and again


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the built-in base, to be opened by its path."""
    from tests.worldlike import worldlike_folder

    return worldlike_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def few_control_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score the built-in world's base on four prompts without a concept instead of sixteen."""
    from mnemon.evaluation.prompts import PROMPTS

    world = PROMPTS["world"]
    monkeypatch.setitem(PROMPTS, "world", replace(world, control=world.control[:4]))


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch, few_control_prompts: None, encoders_opened_once: None) -> None:
    """Score on two images of two steps a concept, where nothing else is asked for."""
    from mnemon.evaluation import EvalSettings

    quick = EvalSettings(num_images=2, num_inference_steps=2)
    monkeypatch.setattr(EvalSettings.__init__, "__defaults__", tuple(vars(quick).values()))


@pytest.fixture
def encoders_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemon.api.opening.encoders_for", _encoders_for)


@cache
def _encoders_for(folder: Path | None, device: object) -> object:
    from mnemon.evaluation import encoders_for

    return encoders_for(folder, device)  # type: ignore[arg-type]


@pytest.fixture
def quick_class_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample class images in two steps."""
    from mnemon.sampling import SamplingSettings
    from mnemon.training import tasks

    quick = partial(tasks.class_images, sampling=SamplingSettings(num_inference_steps=2))
    monkeypatch.setattr(tasks, "class_images", quick)
