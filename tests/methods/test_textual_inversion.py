import torch

from mnemon.methods import Start, TrainedConcept
from mnemon.methods.textual_inversion import TextualInversion
from mnemon.models import Base
from mnemon.sampling import Composed
from tests.contract.table import assert_same_learned, learn, predict, weights
from tests.tiny import tiny_sd_base, tiny_sdxl_base

SMALL = TextualInversion(num_vectors=2, steps=4, batch_size=2)


def said(base: Base, learned: list[TrainedConcept]) -> torch.Tensor:
    with Composed(base, SMALL, learned):
        return predict(base, ["a photo of <rex>"])


def test_no_weight_changes_in_training_or_sampling() -> None:
    base = tiny_sd_base()
    before, seen = weights(base), []
    rex = learn(base, SMALL, "rex", on_step=lambda *_: seen.append(weights(base)))
    with Composed(base, SMALL, [rex]):
        seen.append(weights(base))
    assert rex.deltas == {} and len(seen) == 5
    assert all(torch.equal(tensor, now[name]) for now in seen for name, tensor in before.items())


def test_later_concepts_do_not_change_earlier_ones_images() -> None:
    base = tiny_sd_base()
    rex = learn(base, SMALL, "rex")
    alone = said(base, [rex])
    kiki = learn(base, SMALL, "kiki", [rex])
    assert torch.equal(alone, said(base, [rex, kiki]))
    assert torch.equal(alone, said(base, [kiki, rex]))


def test_the_order_of_learning_does_not_matter() -> None:
    base = tiny_sd_base()
    rex, kiki = learn(base, SMALL, "rex"), learn(base, SMALL, "kiki")
    assert_same_learned(kiki, learn(base, SMALL, "kiki", [rex]))
    assert_same_learned(rex, learn(base, SMALL, "rex", [kiki]))


def test_learning_changes_what_the_token_generates() -> None:
    base = tiny_sd_base()
    assert not torch.equal(said(base, [learn(base, SMALL, "rex", steps=0)]), said(base, [learn(base, SMALL, "rex")]))


def test_the_token_starts_as_the_noun_and_at_random_without_one() -> None:
    base = tiny_sdxl_base()
    numbers = torch.Generator().manual_seed(0)
    class_noun = SMALL.begin(Start("rex", "dog", base, [], numbers)).tokens()
    for encoder, vector in base.word_embeddings("dog").items():
        assert torch.equal(class_noun[encoder].detach(), vector.expand(2, -1))
    first, second = (SMALL.begin(Start("rex", None, base, [], numbers)).tokens() for _ in range(2))
    assert not torch.allclose(first["text_encoder"], second["text_encoder"])


def test_a_concept_costs_its_vectors() -> None:
    learned = learn(tiny_sdxl_base(), TextualInversion(num_vectors=3, steps=1, batch_size=1), "rex")
    assert learned.stored_bytes == 4 * 3 * (32 + 16)


def test_the_class_noun_is_left_out_by_default() -> None:
    assert TextualInversion().prompt_name("rex", "dog") == "<rex>"
    assert TextualInversion(use_class_noun=True).prompt_name("rex", "dog") == "<rex> dog"
