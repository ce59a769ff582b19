"""Libraries on tiny bases that lie in folders, with concepts whose changes are large enough to be seen."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from mnemon.adapters import Delta, Dense, LowRank, MaskedLowRank, Sparse
from mnemon.adapters.checks import matrix_shape
from mnemon.library import Library
from mnemon.methods import method_from
from mnemon.methods.base import TrainedConcept
from mnemon.models import Base, load_base
from mnemon.models.layers import every_layer
from mnemon.sampling import Composed, SamplingSettings, sample
from tests.tiny import tiny_sd, tiny_sdxl
from tests.tiny_transformers import PIPELINES, SIDE, shared_pipeline

SAMPLING = SamplingSettings(guidance_scale=3.0, num_inference_steps=3)
SEED = 5
PLAIN = Path(__file__).with_name("plain.py")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> the folder of a tiny pipeline, the encoders' configs as published ones are."""
    root = tmp_path_factory.mktemp("bases")
    tiny_sd(eos_token_id=2).save_pretrained(root / "sd")
    tiny_sdxl().save_pretrained(root / "sdxl")
    return {family: root / family for family in ("sd", "sdxl")}


@pytest.fixture(params=["sd", "sdxl"])
def base(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Base:
    return load_base(str(folders[request.param]))


@pytest.fixture
def tiny_base(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Base]:
    """A tiny base of a family, in a folder."""

    def loaded(family: str) -> Base:
        if family in folders:
            return load_base(str(folders[family]))
        shared_pipeline(family).save_pretrained(tmp_path / "base")
        base = load_base(str(tmp_path / "base"))
        base.resolution = SIDE
        return base

    return loaded


@pytest.fixture(params=PIPELINES)
def transformer(request: pytest.FixtureRequest, tiny_base: Callable[[str], Base]) -> Base:
    return tiny_base(request.param)


@pytest.fixture
def sd(folders: dict[str, Path]) -> Base:
    return load_base(str(folders["sd"]))


def change(kind: str, shape: tuple[int, int], generator: torch.Generator) -> Delta:
    """A change of one weight, of a kind, about as large as the weights."""

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    up, down = 0.3 * normal(shape[0], 2), normal(2, shape[1])
    mask = torch.rand(shape, generator=generator) > 0.5
    kinds: dict[str, Callable[[], Delta]] = {
        "low_rank": lambda: LowRank(up, down, scale=0.7),
        "masked": lambda: MaskedLowRank(up, down, mask),
        "sparse": lambda: Sparse.from_matrix(0.3 * normal(*shape) * mask),
        "dense": lambda: Dense(0.3 * normal(*shape)),
    }
    return kinds[kind]()


def concept(base: Base, name: str, seed: int, kind: str = "low_rank", vectors: int = 1) -> TrainedConcept:
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        target: change(kind, (layer.out_features, layer.in_features), generator)
        for target, layer in base.target_modules().items()
    }
    widths = {encoder: width for encoder, (width, _, _) in base.embedding_statistics().items()}
    tokens = {encoder: 0.5 * torch.randn(vectors, width, generator=generator) for encoder, width in widths.items()}
    return TrainedConcept(name, "dog", deltas, tokens)


def of_ranks(base: Base, ranks: Mapping[str, int], scales: Sequence[float] = (0.7, 1.0, 2.0)) -> TrainedConcept:
    """A concept <rex> that changes any layers of the base, each by factors of a rank of its own; about a tenth of the
    weights. The scales take turns."""
    generator = torch.Generator().manual_seed(9)
    layers, deltas = every_layer(base), {}
    for index, (target, rank) in enumerate(ranks.items()):
        d_out, d_in = matrix_shape(layers[target])
        up, down = torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator)
        scale = scales[index % len(scales)]
        deltas[target] = LowRank(0.03 / (rank**0.5 * (abs(scale) or 1)) * up, down, scale)
    return TrainedConcept("rex", "dog", deltas, concept(base, "rex", 1).tokens)


@pytest.fixture
def library_of(tmp_path: Path) -> Callable[..., Library]:
    def made(base: Base, *learned: TrainedConcept, method: str = "lora") -> Library:
        library = Library.create(tmp_path / "library", base, method_from(method))
        for one in learned:
            library.commit(one)
        return library

    return made


def drawn(library: Library, base: Base, prompt: str, names: tuple[str, ...] = ()) -> Tensor:
    """The image (3, side, side) as mnemon draws it with these concepts alone in the base."""
    learned = [one for one in library.learned() if not names or one.name in names]
    with Composed(base, library.method, learned) as composed:
        return composed.sample([prompt], [SEED], SAMPLING)[0]


def bare(base: Base, prompt: str) -> Tensor:
    return sample(base, [prompt], [SEED], SAMPLING)[0]


def how_of(base: Base) -> dict[str, Any]:
    """What a family's pipeline has to be told to draw as `drawn` does."""
    how: dict[str, Any] = {
        "num_inference_steps": SAMPLING.num_inference_steps,
        "guidance_scale": SAMPLING.guidance_scale,
    }
    if base.family in ("sd", "sdxl"):
        return how
    how |= {"height": base.resolution, "width": base.resolution}
    if base.family == "z-image":
        how |= {"guidance_scale": SAMPLING.guidance_scale - 1}
    if base.family == "qwen-image":
        how |= {"true_cfg_scale": how.pop("guidance_scale"), "negative_prompt": ""}
    return how


class Plain:
    """A process that knows diffusers and PEFT, and nothing of mnemon."""

    def __init__(self, work: Path) -> None:
        self.out, self.log = work / "picture.npy", work / "log"
        alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PLAIN)], env=alone, text=True, stdin=PIPE, stdout=PIPE, stderr=log
            )

    def sample(self, base: Base, prompt: str, **what: Any) -> Tensor:
        """The image (3, side, side) of `base`'s folder, or of the folder given as `base_folder`, with `what` loaded:
        `code` that is given the pipeline, or a `checkpoint`. No key may be left over."""
        folder = str(what.pop("base_folder", base.name))
        facts = {"base": folder, "family": base.family, "prompt": prompt, "seed": SEED, "out": self.out}
        facts["how"] = how_of(base)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({**facts, **what}, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        said = self.log.read_text()
        assert answer == "done" and "unexpected keys" not in said, answer + said
        return torch.from_numpy(numpy.load(self.out)).permute(2, 0, 1)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    one = Plain(tmp_path_factory.mktemp("plain"))
    yield one
    for pipe in (one.process.stdin, one.process.stdout):
        assert pipe
        pipe.close()
    one.process.wait()


def assert_same(image: Tensor, other: Tensor, within: float = 1e-3) -> None:
    torch.testing.assert_close(image, other, atol=within, rtol=0)


def assert_unlike(image: Tensor, other: Tensor) -> None:
    assert (image - other).abs().max() > 0.005


def card_code(folder: Path) -> str:
    """The Python of a model card, but for the line that draws, with the place filled in."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    return code.replace("this folder", str(folder)).rsplit("pipeline(", 1)[0]
