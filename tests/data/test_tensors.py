import numpy as np
import pytest
import torch

from mnemon.data import photos_tensor
from mnemon.errors import MnemonError
from tests.data.images import concept


def bands(width: int, height: int) -> np.ndarray:
    """Three bands across the longer side: black, grey, white."""
    line = np.repeat(np.array([0, 128, 255], np.uint8), max(width, height) // 3)
    grey = np.tile(line, (height, 1)) if width > height else np.tile(line[:, None], (1, width))
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_crop_keeps_the_middle_square(size):
    images = photos_tensor(concept(bands(*size)), 16)
    assert images.shape == (1, 3, 16, 16) and images.dtype == torch.float32
    assert torch.allclose(images, torch.full_like(images, 128 / 255))


def test_pad_keeps_the_whole_photo_on_white():
    image = photos_tensor(concept(np.zeros((32, 96, 3), np.uint8)), 48, fit="pad")[0]
    assert (image[:, 16:32] == 0).all()
    assert (image[:, :16] == 1).all() and (image[:, 32:] == 1).all()


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1000, 1), (1, 1000)])
def test_any_size_fits(fit, size):
    assert photos_tensor(concept(np.zeros((*size, 3), np.uint8)), 8, fit=fit).shape == (1, 3, 8, 8)


def test_photos_keep_order_and_range():
    images = photos_tensor(concept(*(np.full((9, 9, 3), level, np.uint8) for level in (0, 255, 51))), 4)
    assert images.amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.0, 1.0, 0.2])


def test_flips_mirror_about_half_of_the_photos():
    ramp = np.repeat(np.repeat(np.arange(8, dtype=np.uint8)[None, :, None], 8, axis=0), 3, axis=2)
    many = concept(*[ramp] * 200)
    plain = photos_tensor(many, 8)
    flipped = photos_tensor(many, 8, flip=True, generator=torch.Generator().manual_seed(0))
    mirrored = (flipped != plain).flatten(1).any(dim=1)
    assert 60 < int(mirrored.sum()) < 140
    assert torch.equal(flipped[mirrored], plain[mirrored].flip(-1))


def test_random_crops_move_along_the_longer_side():
    crops = photos_tensor(
        concept(*[bands(96, 32)] * 50), 4, random_crop=True, generator=torch.Generator().manual_seed(0)
    )
    means = crops.mean(dim=(1, 2, 3))
    assert means.min() < 0.25 and means.max() > 0.75


def test_a_seed_gives_the_same_images_again():
    rng = np.random.default_rng(0)
    one = concept(*rng.integers(0, 256, (4, 12, 30, 3), dtype=np.uint8))

    def sample(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return photos_tensor(one, 8, flip=True, random_crop=True, generator=generator)

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


def test_options_that_make_no_sense_are_refused():
    one = concept(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(MnemonError, match="'crop' or 'pad'"):
        photos_tensor(one, 4, fit="stretch")
    with pytest.raises(MnemonError, match="random_crop with fit='crop' only"):
        photos_tensor(one, 4, fit="pad", random_crop=True, generator=torch.Generator())
    with pytest.raises(MnemonError, match="pass a seeded torch.Generator"):
        photos_tensor(one, 4, flip=True)
