"""Reading user files with checks: images to upright RGB, texts to strings."""

import hashlib
import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mnemon.data.concept import Photo
from mnemon.errors import MnemonError

MAX_PIXELS = 50_000_000
"""Largest image read by default, in pixels: a 48-megapixel photo passes."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# Formats that Pillow may try. MPO, the multi-image JPEG of many phones, comes in through its JPEG reader.
_FORMATS = ("JPEG", "PNG", "WEBP")

# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def read_photo(path: Path, *, max_pixels: int = MAX_PIXELS, caption: str | None = None) -> Photo:
    """Read one image, whatever its mode, turn it upright as its EXIF data say, and bring it to RGB.

    The format is taken from the content, not from the name. Of several frames the first is read.

    Raises:
        MnemonError: the file is missing, empty, damaged, no JPEG, PNG or WebP, or has more than `max_pixels` pixels
            (checked before anything is decoded).
    """
    content = _content(path)
    if not content:
        raise MnemonError(f"The image '{path}' is empty (0 bytes): copy it again from where it came, or delete it.")
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which is harmless, and of size, which is checked below.
        warnings.simplefilter("ignore")
        image = _decode(path, content, max_pixels)
    return Photo(image, source=str(path), sha256=hashlib.sha256(content).hexdigest(), caption=caption)


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        MnemonError: the file cannot be read, or is not UTF-8.
    """
    try:
        return _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MnemonError(f"The file '{path}' is not UTF-8 text: save it again with that encoding.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB. Transparent parts become white; 16-bit greys keep their upper 8 bits."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MnemonError(f"There is no file '{path}': check the path and how the name is spelled.") from error
    except OSError as error:
        raise MnemonError(f"The file '{path}' cannot be read ({error.strerror}): check its permissions.") from error


def _decode(path: Path, content: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)  # reads the header only
    except Image.DecompressionBombError as error:
        raise _too_large(path, max_pixels) from error
    except _DAMAGE as error:  # UnidentifiedImageError is an OSError
        raise MnemonError(
            f"The file '{path}' is no readable JPEG, PNG or WebP image, whatever its name says: "
            "save it again as one of these, or delete it."
        ) from error
    if image.width * image.height > max_pixels:
        raise _too_large(path, max_pixels, image.size)
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except _DAMAGE as error:
        raise MnemonError(
            f"The image '{path}' is truncated or damaged ({error}): copy it again from where it came, or delete it."
        ) from error


def _too_large(path: Path, max_pixels: int, size: tuple[int, int] | None = None) -> MnemonError:
    shape = f" ({size[0]} x {size[1]})" if size else ""
    return MnemonError(
        f"The image '{path}'{shape} has more pixels than the limit of {max_pixels:,}: "
        "scale it down; 2000 pixels a side are plenty."
    )
