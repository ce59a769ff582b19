"""What every test shares: nothing is fetched, nothing outlives a test, one thread is enough."""

import os
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


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the built-in base, to be opened by its path."""
    from tests.worldlike import worldlike_folder

    return worldlike_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score on eight images of two steps a concept, where nothing else is asked for."""
    from mnemon.evaluation import EvalSettings

    quick = EvalSettings(num_images=8, num_inference_steps=2)
    monkeypatch.setattr(EvalSettings.__init__, "__defaults__", tuple(vars(quick).values()))
