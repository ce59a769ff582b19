"""Regions: what is heard where."""

from pathlib import Path

import pytest
import torch
from PIL import Image

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


def test_masks_are_images(tmp_path: Path) -> None:
    Image.new("L", (10, 6), 255).save(tmp_path / "all.png")
    Image.new("L", (10, 6), 0).save(tmp_path / "none.png")
    assert region_from_text(f"{tmp_path / 'all.png'}:<rex>").coverage(8).eq(1).all()
    with pytest.raises(MnemonError, match="black all over"):
        region_from_text(f"{tmp_path / 'none.png'}:<rex>")


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
