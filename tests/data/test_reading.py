import hashlib
import pickle
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mnemon.data.colour import to_rgb
from mnemon.data.reading import is_image, read_mask, read_photo, read_text
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
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", "PCX")
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


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.avif", "a.bmp", "a.tif", "a.TIFF", "a.gif"])
def test_other_formats_are_photos_too(tmp_path, name):
    file = save_image(tmp_path / name, RED)
    assert is_image(file)
    assert np.abs(np.asarray(read_photo(file).image, dtype=int) - RED).max() <= 8


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path, name):
    frames = [Image.new("RGB", (24, 16), colour) for colour in (RED, BLUE, RED)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    notes = []
    photo = read_photo(tmp_path / name, note=notes.append)
    assert np.abs(np.asarray(photo.image, dtype=int) - RED).max() <= 8
    assert notes == ["the first of 3 frames is read"]


@pytest.mark.parametrize("suffix", ["jpg", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_every_format_is_turned_upright(tmp_path, suffix, orientation):
    scene = Image.new("RGB", (48, 32), "white")
    scene.paste(RED, (0, 0, 24, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    scene.transpose(STORED[orientation]).save(tmp_path / f"a.{suffix}", exif=exif)
    for image in (read_photo(tmp_path / f"a.{suffix}").image, read_photo(tmp_path / f"a.{suffix}").stored(1)):
        assert image.width * 32 == image.height * 48
        left, below = (image.resize((2, 2), Image.Resampling.BOX).getpixel(at) for at in ((0, 0), (1, 1)))
        assert left[0] > 200 and left[1] < 90 and min(below) > 230


@pytest.mark.parametrize(("mode", "colour"), [("RGB;16B", (255, 128, 0)), ("RGBA;16B", (255, 128, 0))])
def test_sixteen_bit_colours_keep_their_tone(tmp_path, mode, colour):
    """Pillow writes no such files: this one is put together."""
    levels = [level * 257 for level in (*colour, 255)][: len(mode) - 4]
    pixel = b"".join(level.to_bytes(2) for level in levels)
    kind = 6 if mode.startswith("RGBA") else 2
    (tmp_path / "a.png").write_bytes(_png(2, 16, kind, (b"\0" + pixel * 2) * 2))
    assert read_photo(tmp_path / "a.png").image.getpixel((1, 1)) == colour


def test_the_transparent_colour_of_sixteen_bit_files_is_white(tmp_path):
    for kind, key in ((0, (300,)), (2, (300, 300, 300))):
        levels = b"".join(level.to_bytes(2) for level in key)
        file = _png(2, 16, kind, (b"\0" + levels * 2) * 2, (b"tRNS", levels))
        (tmp_path / "a.png").write_bytes(file)
        assert read_photo(tmp_path / "a.png").image.getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_may_be_half_transparent(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=bytes([128, 255]))
    assert np.asarray(read_photo(tmp_path / "a.png").image)[0].tolist() == [[127, 127, 127], [255, 0, 0]]


def test_numbers_that_are_no_brightness_are_refused(tmp_path):
    for pixels in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)):
        Image.fromarray(pixels).save(tmp_path / "a.tif")
        with pytest.raises(MnemonError, match=r"a\.tif' is not read: its pixels .*16.*Save it again"):
            read_photo(tmp_path / "a.tif")


def test_heic_without_its_extra_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("a.heic", "a.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        with pytest.raises(MnemonError, match=r"HEIC photo.*pip install 'mnemon\[heic\]'\), or save it as JPEG"):
            read_photo(tmp_path / name)


def test_heic_is_read_with_its_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(tmp_path / "a.heic", quality=90)
    assert is_image(tmp_path / "a.heic")
    assert np.abs(np.asarray(read_photo(tmp_path / "a.heic").image, dtype=int) - RED).max() <= 8


def test_a_photo_is_decoded_when_it_is_used_and_no_smaller_than_asked(tmp_path):
    file = save_image(tmp_path / "a.jpg", size=(203, 98))
    photo = read_photo(file)
    assert photo.image.size == (203, 98)
    assert photo.stored(40).size == (102, 49)
    assert photo.stored(50).size == (203, 98)
    save_image(file, BLUE)
    with pytest.raises(MnemonError, match=r"a\.jpg' was changed while it was in use"):
        _ = photo.image
    file.unlink()
    with pytest.raises(MnemonError, match="There is no file"):
        _ = photo.image


def test_a_photo_can_be_sent_to_another_process(tmp_path):
    photo = pickle.loads(pickle.dumps(read_photo(save_image(tmp_path / "a.png"))))
    assert photo.image.getpixel((0, 0)) == RED


def test_a_black_mask_is_refused(tmp_path):
    save_image(tmp_path / "a.png", (0, 0, 0))
    with pytest.raises(MnemonError, match=r"mask '.*a\.png' is black all over"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("text", ["<rex> im Grünen".encode("utf-16"), "<rex>".encode("utf-16-le"), b"caf\xe9"])
def test_other_encodings_are_refused_by_name(tmp_path, text):
    (tmp_path / "b.txt").write_bytes(text)
    with pytest.raises(MnemonError, match=r"b\.txt' is not UTF-8 text: save it again"):
        read_text(tmp_path / "b.txt")


def _png_header(side: int) -> bytes:
    """A PNG that claims side x side pixels and holds next to none."""
    return _png(side, 8, 2, b"\x00" * 64)


def _png(side: int, depth: int, kind: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of side x side pixels of `depth` bits and a colour type (0 grey, 2 RGB, 6 RGBA)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0))
    chunks = [head, *(chunk(*one) for one in more), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
