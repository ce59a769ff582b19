import io
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from mnemon.data.colour import to_mask, to_rgb
from mnemon.data.reading import read_photo
from tests.data import profiles

TRUE = (40, 200, 60)  # in sRGB


def stored(icc: bytes, mode: str = "RGB") -> Image.Image:
    """An image of the colour `TRUE` in the numbers of a profile."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    plain = Image.new("RGB", (8, 8), TRUE)
    return ImageCms.profileToProfile(plain, ImageCms.createProfile("sRGB"), target, outputMode=mode)


def colour(image: Image.Image) -> list[int]:
    return list(image.getpixel((3, 3)))


def close(colours, expected, by=2):
    return np.abs(np.subtract(colours, expected)).max() <= by


def notes_of(path):
    notes = []
    read_photo(path, note=notes.append)
    return notes


@pytest.mark.parametrize("primaries", [profiles.ADOBE, profiles.P3], ids=["adobe", "p3"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"])
def test_colours_are_those_that_the_profile_tells(tmp_path, primaries, name):
    icc = profiles.rgb_profile(primaries)
    image = stored(icc)
    assert not close(colour(image), TRUE, 20)
    image.save(tmp_path / name, icc_profile=icc, **({"quality": 100} if name[2:] in ("jpg", "webp", "avif") else {}))
    photo = read_photo(tmp_path / name)
    assert close(colour(photo.image), TRUE, 3 if name[2:] in ("png", "tif") else 12)  # dark red is stretched
    assert "icc_profile" not in photo.image.info  # or whoever saves it would convert it twice
    assert not notes_of(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_and_palettes_do_not_hide_the_profile(tmp_path, mode):
    icc = profiles.rgb_profile(profiles.P3)
    image = stored(icc).convert("RGBA") if mode == "RGBA" else stored(icc).quantize(2)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.repeat([[255], [0]], 4, axis=0).repeat(8, axis=1).astype(np.uint8)))
    image.save(tmp_path / "a.png", icc_profile=icc)
    read = read_photo(tmp_path / "a.png").image
    assert close(colour(read), TRUE)
    assert mode == "P" or read.getpixel((3, 7)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_have_profiles_too(mode):
    image = Image.new("L", (8, 8), 128).convert("LA" if mode == "LA" else "L")
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 128 * 256, np.uint16))
    image.info["icc_profile"] = profiles.grey_profile(1.0)
    assert close(colour(to_rgb(image)), [188] * 3)  # sRGB of half the light
    image.info["icc_profile"] = profiles.rgb_profile(gamma=1.0)  # of a grey JPEG by a tool that knows colours only
    assert close(colour(to_rgb(image)), [188] * 3)


def test_cmyk_is_printed_as_its_profile_says(tmp_path):
    ink = {(1, 0, 0, 0): (60, -30, -40), (0, 1, 0, 0): (50, 70, 0), (0, 0, 0, 0): (96, 0, 2)}
    icc = profiles.cmyk_profile(lambda *corner: ink.get(corner, (0, 0, 0)))
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.save(tmp_path / "a.tif", icc_profile=icc)
    lab = Image.new("LAB", (8, 8), (153, 128 - 30, 128 - 40))
    assert close(colour(read_photo(tmp_path / "a.tif").image), colour(to_rgb(lab)), 3)
    assert not close(colour(image.convert("RGB")), colour(to_rgb(lab)), 20)


@pytest.mark.parametrize("icc", [b"no profile", profiles.rgb_profile()[:200], profiles.grey_profile(2.2)])
def test_a_profile_that_cannot_be_used_is_said(tmp_path, icc):
    Image.new("RGB", (8, 8), TRUE).save(tmp_path / "a.png", icc_profile=icc)
    assert colour(read_photo(tmp_path / "a.png").image) == list(TRUE)
    assert ["taken for sRGB" in note for note in notes_of(tmp_path / "a.png")] == [True]


def test_a_profile_that_does_not_unpack_is_said(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8), TRUE).save(file, icc_profile=profiles.rgb_profile())
    content = bytearray(file.read_bytes())
    at = content.index(b"iCCP")
    length = int.from_bytes(content[at - 4 : at])
    content[at + 20 : at + 30] = b"\xff" * 10
    content[at + 4 + length : at + 8 + length] = zlib.crc32(content[at : at + 4 + length]).to_bytes(4)
    file.write_bytes(content)
    assert ["taken for sRGB" in note for note in notes_of(file)] == [True]


def test_adobe_rgb_that_only_exif_tells_is_seen(tmp_path):
    """As cameras write it: no profile, interoperability index R03. The numbers are Adobe RGB's by its definition."""
    linear = np.array([((c / 255 + 0.055) / 1.055) ** 2.4 for c in TRUE])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    to_adobe = np.array([[2.04159, -0.56501, -0.34473], [-0.96924, 1.87597, 0.04156], [0.01344, -0.11836, 1.01517]])
    numbers = np.round(255 * (to_adobe @ to_xyz @ linear).clip(0) ** (256 / 563)).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {0xA001: 0xFFFF, ExifTags.IFD.Interop: {1: "R03"}}
    Image.new("RGB", (8, 8), tuple(numbers.tolist())).save(tmp_path / "a.png", exif=exif)
    assert not close(numbers, TRUE, 20)
    assert close(colour(read_photo(tmp_path / "a.png").image), TRUE)


def test_without_a_profile_nothing_changes():
    assert colour(to_rgb(Image.new("RGB", (8, 8), TRUE))) == list(TRUE)


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[0, 255]], np.uint8),
        np.array([[0, 1]], np.uint8),
        np.array([[0, 65535]], np.uint16),
        np.array([[0, 1]], np.uint16),
        np.array([[False, True]]),
        np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8),
        np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8),  # a thing cut out: the opaque part
    ],
    ids=["grey", "0/1", "16 bits", "0/1 in 16 bits", "1 bit", "colour", "cut out"],
)
def test_masks_are_white_inside_however_they_are_written(mask):
    assert np.asarray(to_mask(Image.fromarray(mask))).tolist() == [[0, 255]]
