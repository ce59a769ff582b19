"""What a comparison on fair ground needs: every method starts its tokens where it is told, and says the noun."""

import pytest
import torch

from mnemon.methods import METHODS, Start, method_from
from mnemon.models import Base
from tests.tiny import tiny_sd_base


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def start(base: Base, class_noun: str | None = "dog") -> Start:
    return Start("rex", class_noun, base, [], torch.Generator().manual_seed(0))


def told(name: str, **settings: object) -> dict[str, object]:
    """With what some methods have besides switched off."""
    known = {"class_vector": False, "rare_words": False}
    return settings | {key: value for key, value in known.items() if hasattr(METHODS[name], key)}


@pytest.mark.parametrize("name", METHODS)
def test_three_embeddings_start_at_the_noun(base: Base, name: str) -> None:
    method = method_from(name, told(name, token_init="class_noun", num_vectors=3, use_class_noun=True))
    embeddings = method.begin(start(base)).tokens()["text_encoder"].detach().reshape(-1, 3, 32)
    noun = base.word_embeddings("dog")["text_encoder"]
    assert torch.allclose(embeddings, noun.expand_as(embeddings), atol=0.01 * float(noun.std()) * 10)
    assert method.prompt_name("rex", "dog") == "<rex> dog"


@pytest.mark.parametrize("name", METHODS)
def test_or_at_random(base: Base, name: str) -> None:
    method = method_from(name, told(name, token_init="random", num_vectors=2, use_class_noun=False))
    (first, second) = method.begin(start(base)).tokens()["text_encoder"].detach().reshape(-1, 2, 32)[0]
    noun = base.word_embeddings("dog")["text_encoder"]
    distances = [torch.dist(*pair) for pair in ((first, second), (first, noun), (second, noun))]
    assert min(distances) > noun.norm() / 2
    assert method.prompt_name("rex", "dog") == "<rex>"
