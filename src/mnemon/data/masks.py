"""Masks beside photos, as other trainers name them: `a-masklabel.png`, `a_mask.png`, `mask/a.png` for `a.jpg`."""

from collections.abc import Sequence
from pathlib import Path

from mnemon.data.reading import is_image
from mnemon.data.report import ReadingReport

ALWAYS = ("-masklabel",)
"""What the stem of a mask ends in (OneTrainer), whether or not there is a photo for it."""
WITH_PHOTO = ("_mask", "-mask", ".mask", "_masklabel")
"""Endings that mean a mask only beside a photo without them."""
CONDITIONING = ("-condlabel",)
"""Of the images that inpainting models are conditioned on (OneTrainer)."""
FOLDERS = ("mask", "masks", "masklabel", "masklabels")


def split_masks(entries: Sequence[Path], report: ReadingReport) -> tuple[list[Path], dict[Path, Path]]:
    """The photos among the entries of one folder, in their order, and the masks of those that have one.

    Masks without a photo and images for conditioning are passed over.
    """
    images = [entry for entry in entries if is_image(entry)]
    stems = {image.stem for image in images}
    marked = {image: stem for image in images if (stem := _photo_stem(image, stems)) is not None}
    photos = [image for image in images if image not in marked]
    inside = [file for entry in entries if is_mask_folder(entry) for file in sorted(entry.iterdir()) if is_image(file)]
    masks: dict[str, Path] = {}
    for file, stem in {**marked, **{file: file.stem for file in inside}}.items():
        name = file.name if file in marked else f"{file.parent.name}/{file.name}"
        if file.stem.lower().endswith(CONDITIONING):
            report.skip("image for conditioning", name)
        elif stem not in {photo.stem for photo in photos}:
            report.skip("mask without a photo", name)
        elif stem in masks:
            report.skip("second mask of a photo", name)
        else:
            masks[stem] = file
            if len(same := [photo.name for photo in photos if photo.stem == stem]) > 1:
                report.note(f"{name} is the mask of {' and of '.join(same)}, which share a name.")
    return photos, {photo: masks[photo.stem] for photo in photos if photo.stem in masks}


def is_mask_folder(path: Path) -> bool:
    return path.name.lower() in FOLDERS and path.is_dir()


def _photo_stem(image: Path, stems: set[str]) -> str | None:
    """The stem of the photo that this image is a mask or a conditioning image of; None if it is a photo."""
    for ending in (*ALWAYS, *CONDITIONING, *WITH_PHOTO):
        stem = image.stem[: -len(ending)]
        if image.stem.lower().endswith(ending) and (ending not in WITH_PHOTO or stem in stems):
            return stem
    return None
