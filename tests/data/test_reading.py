import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mnemon.data.reading import read_photo, read_text, to_rgb
from mnemon.errors import MnemonError
from tests.data.images import BLUE, RED, save_image

ORIENTATION = 0x0112

# How a scene lies in the file under each EXIF orientation but 1 (Exif 2.32, tag 274).
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # counter-clockwise: the reader turns it clockwise
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG", "a.png", "a.webp"])
def test_reads_each_format_to_rgb_and_hashes_the_file(tmp_path, name):
    file = save_image(tmp_path / name, RED)
    photo = read_photo(file)
    assert photo.image.mode == "RGB" and photo.image.size == (24, 16)
    assert np.abs(np.asarray(photo.image, dtype=int) - RED).max() <= 8
    assert photo.source == str(file)
    assert photo.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_reads_the_first_image_of_an_mpo(tmp_path):
    file = tmp_path / "phone.jpg"
    Image.new("RGB", (24, 16), RED).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (24, 16), BLUE)])
    with Image.open(file) as image:
        assert image.format == "MPO"
    assert np.asarray(read_photo(file).image)[..., 0].min() > 240


def test_the_content_decides_the_format_not_the_name(tmp_path):
    Image.new("RGB", (24, 16), RED).save(tmp_path / "a.png", "JPEG")
    assert read_photo(tmp_path / "a.png").image.size == (24, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_the_photo_upright(tmp_path, orientation):
    """A camera that stores the scene turned notes how: whatever the note, red is up left and blue down right."""
    scene = Image.new("RGB", (6, 4), "white")
    scene.putpixel((0, 0), RED)
    scene.putpixel((5, 3), BLUE)
    stored = scene if orientation == 1 else scene.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    image = read_photo(tmp_path / "a.png").image
    assert image.size == (6, 4)
    assert image.getpixel((0, 0)) == RED and image.getpixel((5, 3)) == BLUE


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "PA", "RGBA", "RGBa", "I", "I;16"])
def test_every_mode_comes_out_as_rgb(mode):
    grey = Image.new("L", (4, 4), 255)
    image = Image.fromarray(np.full((4, 4), 65535, np.int32)).convert("I") if mode[0] == "I" else grey
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    elif mode in ("PA", "RGBa"):
        image = grey.convert("LA" if mode == "PA" else "RGBA").convert(mode)
    elif mode != "I":
        image = grey.convert("RGB").convert(mode)
    rgb = to_rgb(image)
    assert image.mode == mode and rgb.mode == "RGB"
    assert np.asarray(rgb).min() >= 253  # white stays white


def test_sixteen_bit_greys_keep_their_tone(tmp_path):
    Image.fromarray(np.array([[0, 128 * 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_photo(tmp_path / "a.png").image)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparent_parts_become_white(tmp_path, suffix):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1] = (255, 0, 0, 255)
    rgba[:, 2] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", lossless=True)
    row = np.asarray(read_photo(tmp_path / f"a{suffix}").image)[0].tolist()
    assert row == [[255, 255, 255], [255, 0, 0], [127, 127, 127]]


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 255, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert np.asarray(read_photo(tmp_path / "a.png").image)[0].tolist() == [[255, 255, 255], [255, 0, 0]]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_truncated_image_is_refused(tmp_path, name):
    file = tmp_path / name
    Image.effect_noise((64, 64), 60).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(MnemonError, match=f"{name}' is (truncated|no readable).*(copy|save) it again"):
        read_photo(file)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(MnemonError, match=r"a\.jpg' is empty \(0 bytes\): copy it again"):
        read_photo(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"just some text\n", b"version https://git-lfs.github.com/spec/v1\n", b"\x89PNG"])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(MnemonError, match=r"a\.jpg' is no readable JPEG, PNG or WebP image.*save it again"):
        read_photo(tmp_path / "a.jpg")


def test_other_formats_are_refused_under_any_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", "BMP")
    with pytest.raises(MnemonError, match="is no readable JPEG, PNG or WebP"):
        read_photo(tmp_path / "a.jpg")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(MnemonError, match=r"There is no file '.*a\.jpg'"):
        read_photo(tmp_path / "a.jpg")


def test_the_pixel_limit_is_the_callers(tmp_path):
    file = save_image(tmp_path / "a.png", size=(20, 10))
    assert read_photo(file, max_pixels=200).image.size == (20, 10)
    with pytest.raises(MnemonError, match=r"a\.png' \(20 x 10\) has more pixels than the limit of 199: scale it down"):
        read_photo(file, max_pixels=199)


@pytest.mark.parametrize("side", [8_000, 11_000, 60_000])  # above our limit; where Pillow warns; where Pillow refuses
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side, monkeypatch):
    (tmp_path / "a.png").write_bytes(_png_header(side))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(MnemonError, match=r"a\.png'.*has more pixels than the limit of 50,000,000"):
        read_photo(tmp_path / "a.png")


def test_odd_metadata_is_no_warning(tmp_path):
    Image.new("P", (4, 4)).save(tmp_path / "a.png", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_photo(tmp_path / "a.png")


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text(tmp_path / "a.txt") == "café"
    (tmp_path / "b.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(MnemonError, match=r"b\.txt' is not UTF-8 text"):
        read_text(tmp_path / "b.txt")


def _png_header(side: int) -> bytes:
    """A PNG that claims side x side pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)))
    file.write(chunk(b"IDAT", zlib.compress(b"\x00" * 64)) + chunk(b"IEND", b""))
    return file.getvalue()
