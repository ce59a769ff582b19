import torch

from mnemon.methods.parts import MlpToken, VectorToken, init_factors, random_embeddings
from tests.tiny import tiny_sdxl_base


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_token_starts_like_a_word_of_each_text_encoder() -> None:
    base = tiny_sdxl_base()
    start = random_embeddings(base, 400, generator())
    for encoder, (width, mean, deviation) in base.embedding_statistics().items():
        assert start[encoder].shape == (400, width)
        assert abs(start[encoder].mean().item() - mean) < 0.1 * deviation
        assert abs(start[encoder].std().item() / deviation - 1) < 0.1


def test_factors_start_at_a_product_of_zero_with_one_side_alive() -> None:
    up, down = init_factors(torch.nn.Linear(7, 5), 2, generator())
    assert up.shape == (5, 2) and down.shape == (2, 7)
    assert not up.any() and down.all() and down.abs().max() <= 7**-0.5


def test_the_mlp_token_starts_near_its_start() -> None:
    start = {"text_encoder": 0.02 * torch.randn(2, 32, generator=generator())}
    vectors = MlpToken(start, 256, generator())()["text_encoder"]
    assert vectors.shape == (2, 32)
    assert (vectors - start["text_encoder"]).abs().max() < 0.1 * start["text_encoder"].std()


def test_one_step_moves_either_token_by_the_rate() -> None:
    start = {"text_encoder": 0.02 * torch.randn(1, 32, generator=generator())}
    for token in (VectorToken({k: v.clone() for k, v in start.items()}), MlpToken(start, 256, generator())):
        before = token()["text_encoder"].detach().clone()
        optimizer = torch.optim.Adam(token.parameters(), lr=token.learning_rate(5e-3))
        token()["text_encoder"].sum().backward()
        optimizer.step()
        moved = (token()["text_encoder"] - before).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 5e-3), rtol=0.1, atol=0)
