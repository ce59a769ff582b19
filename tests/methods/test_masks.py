import pytest
import torch

from mnemon.methods.masks import MaskLogits, MaskParam, soft_gates, training_logits, training_mask


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", ["gumbel_st", "sigmoid_st"])
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_straight_through_masks_are_exactly_zero_or_one(kind, tau: float) -> None:
    logits = torch.randn(2, 40, 50, generator=generator(), requires_grad=True)
    noisy = training_logits(logits, kind, generator())
    mask, gates = training_mask(noisy, kind, tau), soft_gates(noisy, tau).detach()
    assert set(mask.detach().unique().tolist()) == {0.0, 1.0}
    weights = torch.randn(2, 40, 50, generator=generator())
    (weights * mask).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, weights * gates * (1 - gates) / tau)  # the sigmoid's own slope


def test_gumbel_noise_opens_a_gate_with_the_probability_of_its_logit() -> None:
    for logit in (-1.0, 0.0, 2.0):
        mask = training_mask(training_logits(torch.full((200, 200), logit), "gumbel_st", generator()), "gumbel_st", 1.0)
        assert abs(mask.mean().item() - torch.tensor(logit).sigmoid().item()) < 0.01


def test_two_gumbels_and_one_uniform_are_the_same_noise() -> None:
    zero = torch.zeros(400, 400)
    gates = training_logits(zero, "gumbel_st", generator()).sigmoid()
    uniform = torch.rand(2, 400, 400, generator=generator()).clamp(1e-6, 1 - 1e-6)
    gumbel = -(-uniform.log()).log()
    expected = torch.sigmoid(gumbel[0] - gumbel[1])
    places = torch.tensor([0.1, 0.25, 0.5, 0.9]) * zero.numel()
    found = [values.flatten().sort().values[places.long()] for values in (gates, expected)]
    torch.testing.assert_close(*found, atol=0.01, rtol=0)


def test_without_noise_a_gate_opens_with_the_sign_of_its_logit() -> None:
    logits = torch.tensor([-3.0, -0.1, 0.1, 3.0])
    assert torch.equal(training_logits(logits, "sigmoid_st", generator()), logits)
    assert training_mask(logits, "gumbel_st", 1.0).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(training_mask(logits, "soft", 2.0), torch.sigmoid(logits / 2))


@pytest.mark.parametrize("param", ["factor_mlp", "factor_linear"])
def test_nearly_all_gates_start_open(param: MaskParam) -> None:
    logits = MaskLogits((3, 64, 48), 16, 2.0, param, generator(), torch.device("cpu"))()
    assert logits.shape == (3, 64, 48)
    assert abs(logits.mean().item() - 2) < 0.1 and (logits > 0).float().mean() > 0.99
    assert logits.std() > 0.01  # but they differ, or all gates would move alike


def test_stacked_mask_networks_are_networks_of_their_own() -> None:
    stacked = MaskLogits((3, 6, 5), 4, 2.0, "factor_mlp", generator(), torch.device("cpu"))
    stacked()[1].sum().backward()
    for parameter in stacked.parameters():
        assert not parameter.grad[[0, 2]].any() and parameter.grad[1].any()
