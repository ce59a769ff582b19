"""What a mask leaves out has no gradient, and what is trained without masks is as before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mnemon.data import Concept, Photo
from mnemon.errors import MnemonError
from mnemon.methods.lora import Lora
from mnemon.models import Base
from mnemon.training import ConceptTask, Examples, PhotoSettings, TrainingSettings, denoising_loss, make_tasks, train
from mnemon.training.examples import draw_batch, joined
from mnemon.training.tasks import examples_of
from tests.contract.table import assert_same_learned
from tests.tiny import tiny_sd_base

LORA = Lora(rank=2, steps=3, batch_size=2)


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def latents(base: Base, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *base.latent_shape(), generator=torch.Generator().manual_seed(seed))


def left_half(base: Base, count: int) -> torch.Tensor:
    mask = torch.zeros(count, 1, *base.latent_shape()[1:])
    mask[..., : mask.shape[-1] // 2] = 1
    return mask


def test_the_masked_part_gets_no_gradient(base: Base) -> None:
    """By the target, which nothing mixes: the prediction of one position sees all others."""
    clean, noise = latents(base, 2), latents(base, 2, seed=1).requires_grad_()
    mask, steps, condition = left_half(base, 2), torch.tensor([10, 900]), base.encode_prompts(["a dog"] * 2)
    predicted = base.predict(base.schedule.add_noise(clean, noise.detach(), steps), steps, condition)
    base_predict, base.predict = base.predict, lambda *_: predicted
    try:
        losses = denoising_loss(base, clean, noise, steps, condition, masks=mask)
    finally:
        base.predict = base_predict
    losses.sum().backward()
    assert (noise.grad[..., mask[0, 0] == 0] == 0).all() and (noise.grad[..., mask[0, 0] == 1] != 0).any()
    error = (predicted - base.schedule.target(clean, noise, steps)).square()
    torch.testing.assert_close(losses, (error * mask).mean(dim=(1, 2, 3)))


def test_training_does_not_see_where_the_mask_is_black(base: Base) -> None:
    """Black all over: no gradient, so the factor that starts at zero stays there."""
    mask = torch.zeros(2, 1, *base.latent_shape()[1:])
    nothing = ConceptTask("rex", "dog", Examples(latents(base, 2), ["<rex> dog"] * 2, mask))
    (learned,) = train(base, LORA, [nothing])
    assert all(float(delta.matrix().abs().max()) == 0 for delta in learned.deltas.values())  # B starts at zero
    whole = replace(nothing, examples=Examples(latents(base, 2), ["<rex> dog"] * 2))
    (other,) = train(base, LORA, [whole])
    assert any(float(delta.matrix().abs().max()) > 0 for delta in other.deltas.values())


def test_white_masks_change_nothing(base: Base) -> None:
    prompts, images = ["<rex> dog"] * 3, latents(base, 3)
    prior = Examples(latents(base, 2, seed=4), ["a dog"] * 2)
    plain = train(base, LORA, [ConceptTask("rex", "dog", Examples(images, prompts), prior)])
    white = Examples(images, prompts, torch.ones(3, 1, *base.latent_shape()[1:]))
    settings = TrainingSettings(gradient_accumulation_steps=2)
    assert_same_learned(train(base, LORA, [ConceptTask("rex", "dog", white, prior)])[0], plain[0])
    assert train(base, LORA, [ConceptTask("rex", "dog", white, prior)], settings=settings)


def test_class_images_are_not_masked(base: Base) -> None:
    masked = Examples(latents(base, 2), ["<rex>"] * 2, left_half(base, 2))
    prior = Examples(latents(base, 2, seed=1), ["a dog"] * 2)
    batch = draw_batch(base, masked, prior, 1.0, 2, torch.Generator().manual_seed(0))
    assert batch.masks is not None and batch.masks[:2].mean() == 0.5 and (batch.masks[2:] == 1).all()
    both = joined([prior, masked])
    assert both is not None and both.masks is not None and both.masks.flatten(1).mean(1).tolist() == [1, 1, 0.5, 0.5]
    assert draw_batch(base, prior, None, 1.0, 2, torch.Generator()).masks is None


def rex(*masks: Image.Image | None) -> Concept:
    image = Image.new("RGB", (64, 64), (90, 60, 30))
    return Concept("rex", tuple(Photo(image, f"{i}.png", "", mask=mask) for i, mask in enumerate(masks)), "dog")


def test_masks_come_at_the_resolution_of_latents_flipped_as_the_photos(base: Base) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    concept = rex(Image.fromarray(mask), None)
    examples = examples_of(base, LORA, concept, PhotoSettings(flip=True), masked=True)
    assert examples.masks is not None and examples.masks.shape == (12, 1, *base.latent_shape()[1:])
    half = base.latent_shape()[2] // 2
    left = examples.masks[..., :half].flatten(1).mean(1).tolist()
    assert left == [1.0] * 6 + [0.0] * 3 + [1.0] * 3  # three prompts of each photo, then of each mirrored one
    assert examples_of(base, LORA, concept).masks is None


def test_a_masked_loss_needs_masks(base: Base) -> None:
    with pytest.raises(MnemonError, match="needs masks, and 'rex' has none: put 'a-masklabel.png'"):
        make_tasks(base, LORA, [rex(None)], masked=True)
    with pytest.raises(MnemonError, match="needs masks: give the tasks some"):
        train(base, LORA, make_tasks(base, LORA, [rex(None)]), settings=TrainingSettings(masked_loss=True))


def test_other_masks_are_another_run(base: Base, tmp_path, caplog) -> None:
    settings = TrainingSettings(masked_loss=True, checkpoint_seconds=0)
    for share, resumed in ((1.0, False), (0.5, True)):
        masks = torch.full((2, 1, *base.latent_shape()[1:]), share)
        task = ConceptTask("rex", "dog", Examples(latents(base, 2), ["<rex> dog"] * 2, masks))
        train(base, LORA, [task], settings=settings, folder=tmp_path)
        assert ("masks of rex" in caplog.text) == resumed
