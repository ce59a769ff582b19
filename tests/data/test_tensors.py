from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mnemon.data import Concept, concept_from_folder, masks_tensor, photo_squares, photos_tensor
from mnemon.data.parallel import WORKERS
from mnemon.errors import MnemonError
from tests.data.images import concept, photo, save_image


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


def masked(mask: np.ndarray, size: tuple[int, int] = (96, 32)) -> Concept:
    """One photo of three bands with a mask (height, width)."""
    one = photo(bands(*size))
    return Concept("rex", (replace(one, mask=Image.fromarray(mask)),))


@pytest.mark.parametrize("scale", [1, 2])
def test_masks_are_cut_as_their_photos_are(scale):
    mask = np.zeros((32 * scale, 96 * scale), np.uint8)
    mask[:, : 64 * scale] = 255  # the black and the grey band
    one = masked(mask)
    assert masks_tensor(one, 16).shape == (1, 1, 16, 16)
    assert (masks_tensor(one, 16) == 1).all()  # the middle square is grey
    padded = masks_tensor(one, 48, fit="pad")
    assert (padded[..., 17:31, :30] == 1).all() and padded[..., :15, :].max() == padded[..., 34:].max() == 0
    seeds = range(20)
    photos = torch.cat([photos_tensor(one, 8, random_crop=True, generator=rng(seed)) for seed in seeds])
    masks = torch.cat([masks_tensor(one, 8, random_crop=True, generator=rng(seed)) for seed in seeds])
    assert torch.equal(masks.flatten(1).mean(1) < 0.5, photos.flatten(1).mean(1) > 0.75)  # white has no mask


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_photo_without_a_mask_counts_all_over_but_not_beside_it():
    one = concept(bands(96, 32))
    assert (masks_tensor(one, 8) == 1).all()
    assert masks_tensor(one, 48, fit="pad")[0, 0, :, 20].tolist() == [0] * 16 + [1] * 16 + [0] * 16


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((96, 32), 255, np.uint8), "32 x 96 pixels, another shape than the photo"),
        (np.full((64, 64), 255, np.uint8), "another shape than the photo"),
        (np.zeros((32, 96), np.uint8), "black where the photo is used: paint the thing white"),
        (np.repeat(np.array([[255, 0, 0]], np.uint8), 32, axis=0).repeat(32, axis=1), "black where the photo is used"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    with pytest.raises(MnemonError, match=message):
        masks_tensor(masked(mask), 8)


def test_photos_are_decoded_a_few_at_a_time(tmp_path, monkeypatch):
    """However many there are, so that the memory does not grow with them."""
    for index in range(20):
        save_image(tmp_path / "rex" / f"{index:02}.png", (index, 0, 0))
    many = concept_from_folder(tmp_path / "rex")
    seen = []
    squares = photo_squares(replace(many, photos=tuple(replace(p, stored=counting(p, seen)) for p in many.photos)), 8)
    for index, square in enumerate(squares):
        assert round(float(square[0, 0, 0]) * 255) == index
        assert len(seen) <= index + 2 + WORKERS


def counting(photo, seen):
    def stored(side=None):
        seen.append(photo)
        return photo.stored(side)

    return stored
