import torch

from mnemon.adapters import LowRank
from mnemon.methods.lora import Lora
from tests.contract.table import learn
from tests.tiny import tiny_sd_base, tiny_sdxl_base


def test_a_concept_costs_its_factors_and_its_vectors() -> None:
    base = tiny_sd_base()
    learned = learn(base, Lora(rank=3, num_vectors=2, steps=1, batch_size=1), "rex")
    factors = sum(3 * (layer.out_features + layer.in_features) for layer in base.target_modules().values())
    scales = 8 * len(base.target_modules())
    assert learned.stored_bytes == 4 * factors + scales + 4 * 2 * 32
    assert all(isinstance(delta, LowRank) and delta.rank == 3 for delta in learned.deltas.values())


def test_sdxl_learns_vectors_for_both_text_encoders() -> None:
    learned = learn(tiny_sdxl_base(), Lora(rank=2, num_vectors=2, steps=1, batch_size=1), "rex")
    shapes = {encoder: tuple(vectors.shape) for encoder, vectors in learned.tokens.items()}
    assert shapes == {"text_encoder": (2, 32), "text_encoder_2": (2, 16)}


def test_concepts_start_at_different_tokens_with_one_seed() -> None:
    base, method = tiny_sd_base(), Lora(rank=2, steps=0, batch_size=1)
    rex, kiki = learn(base, method, "rex"), learn(base, method, "kiki")
    assert not torch.allclose(rex.tokens["text_encoder"], kiki.tokens["text_encoder"], atol=1e-3)
