"""Regions: what is heard where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from mnemon.errors import MnemonError
from mnemon.sampling.regions import Region, layout_boxes, region_from_text, region_masks, scene_of


def test_every_place_hears_the_prompt_or_its_region() -> None:
    left = region_from_text("0,0,0.5,1:<rex>")
    heard = region_masks([left, Region("<mia>", (0.75, 0.5, 1.0, 1.0))], 8)
    assert left.prompt == "<rex>" and heard.shape == (3, 8, 8)
    torch.testing.assert_close(heard.sum(0), torch.ones(8, 8))
    assert heard[1, :, :4].eq(1).all() and heard[1, :, 4:].eq(0).all()
    assert heard[2, 4:, 6:].eq(1).all() and heard[2].sum() == 8
    assert heard[0, 0, 7] == 1 and heard[0, 0, 0] == 0


def test_overlaps_are_shared_and_edges_fade() -> None:
    regions = [Region("a", (0.0, 0.0, 0.75, 1.0)), Region("b", (0.25, 0.0, 1.0, 1.0))]
    heard = region_masks(regions, 8)
    assert heard[1, 0].tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 0, 0] and heard[0].eq(0).all()
    faded = region_masks([Region("a", (0.0, 0.0, 0.5, 1.0))], 32, feather=0.25)
    torch.testing.assert_close(faded.sum(0), torch.ones(32, 32))
    row = faded[1, 16]
    assert row[0] == 1 and row[-1] == 0 and 0.3 < row[16] < 0.7 and (row.diff() <= 0).all()


def test_a_box_between_two_cells_counts_by_area() -> None:
    assert Region("a", (0.0, 0.0, 0.3, 1.0)).coverage(4)[0].tolist() == pytest.approx([1, 0.2, 0, 0])


def half(high: int, dtype: type = np.uint8) -> np.ndarray:
    """8 x 8 numbers whose left half is `high`."""
    numbers = np.zeros((8, 8), dtype)
    numbers[:, :4] = high
    return numbers


def coloured(image: Image.Image) -> Image.Image:
    """The same in palette colours: 0 black, 1 white."""
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def transparent(alpha: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGBA", (8, 8), colour)
    image.putalpha(Image.fromarray(alpha))
    return image


MASKS = {
    "8 bits": lambda: Image.fromarray(half(255)),
    "one bit": lambda: Image.fromarray(half(255)).convert("1"),
    "0 and 1": lambda: Image.fromarray(half(1)),
    "16 bits": lambda: Image.fromarray(half(65535, np.uint16)),
    "16 bits, 0 and 1": lambda: Image.fromarray(half(1, np.uint16)),
    "RGB": lambda: Image.fromarray(half(255)).convert("RGB"),
    "RGB, 0 and 1": lambda: Image.fromarray(half(1)).convert("RGB"),
    "grey and alpha": lambda: Image.fromarray(half(255)).convert("LA"),
    "palette": lambda: coloured(Image.fromarray(half(1), mode="P")),
    "white on nothing": lambda: transparent(half(255), (255, 255, 255)),
    "a layer of colour": lambda: transparent(half(255), (0, 90, 0)),
    "opaque": lambda: Image.fromarray(half(255)).convert("RGBA"),
}


OF_WEBP = ("RGB", "white on nothing", "a layer of colour", "opaque")


@pytest.mark.parametrize(
    ("kind", "suffix"), [*((kind, "png") for kind in MASKS), *((kind, "webp") for kind in OF_WEBP)]
)
def test_masks_are_white_inside_whatever_their_mode(tmp_path: Path, kind: str, suffix: str) -> None:
    MASKS[kind]().save(tmp_path / f"mask.{suffix}", lossless=True, exact=True)
    region = region_from_text(f"{tmp_path / 'mask'}.{suffix}:<rex>")
    assert region.coverage(8).numpy() == pytest.approx(half(1))


def test_a_mask_stands_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise: what lies at the top comes to the right
    Image.fromarray(half(255).T.copy()).save(tmp_path / "mask.png", exif=exif)
    assert region_from_text(f"{tmp_path / 'mask.png'}:<rex>").coverage(8).numpy() == pytest.approx(1 - half(1))


def test_a_mask_of_another_size_or_shape_is_scaled_and_said(tmp_path: Path) -> None:
    Image.fromarray(half(255)).resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    assert region_from_text(f"{tmp_path / 'large.png'}:<rex>").coverage(8).numpy() == pytest.approx(half(1))
    Image.new("L", (10, 6), 255).save(tmp_path / "wide.png")
    with pytest.warns(UserWarning, match="wide.png' of a region is 10 x 6 pixels, and is stretched"):
        assert region_from_text(f"{tmp_path / 'wide.png'}:<rex>").coverage(8).eq(1).all()
    Image.fromarray(half(40)).save(tmp_path / "dark.png")
    with pytest.warns(UserWarning, match="dark.png' of a region is nowhere brighter than 16%"):
        region_from_text(f"{tmp_path / 'dark.png'}:<rex>")


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "I;16", "RGBA"])
def test_a_mask_with_nothing_inside_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8), 0).save(tmp_path / "none.png")
    with pytest.raises(MnemonError, match="none.png' is black all over"):
        region_from_text(f"{tmp_path / 'none.png'}:<rex>")


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("no image")
    with pytest.raises(MnemonError, match="mask.png' is no readable"):
        region_from_text(f"{tmp_path / 'mask.png'}:<rex>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0,1.5,1:<rex>", "not inside the image"),
        ("0.5,0,0.5,1:<rex>", "left less than right"),
        ("0,0,a,1:<rex>", "no number"),
        ("0,0,1,1", "says no prompt"),
        ("0,0,1:<rex>", "neither a box"),
    ],
)
def test_bad_regions_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(MnemonError, match=message):
        region_from_text(text)


def test_things_are_spread_over_the_image() -> None:
    assert layout_boxes(1) == [(0, 0, 1, 1)]
    assert layout_boxes(2) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert layout_boxes(4) == [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)]
    for count in range(1, 10):
        heard = region_masks([Region("x", box) for box in layout_boxes(count)], 36)
        torch.testing.assert_close(heard[0], torch.zeros(36, 36), atol=1e-5, rtol=0)
    with pytest.raises(MnemonError, match="one to nine"):
        layout_boxes(10)


def test_the_scene_is_what_comes_after_the_last_concept() -> None:
    assert scene_of("a photo of <rex> dog and <mia> cat on the beach") == "on the beach"
    assert scene_of("<rex>") == ""
