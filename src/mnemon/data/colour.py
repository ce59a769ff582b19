"""Colours of image files: any mode, depth and colour profile to 8-bit sRGB, masks to 8-bit grey."""

import io
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import ExifTags, Image, ImageCms

Note = Callable[[str], None]
"""Called with what is worth a word to the user."""


class UnreadPixels(ValueError):
    """The pixels are no 8- or 16-bit numbers."""


# Colour space of a profile -> the mode of an image that it can describe.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def to_rgb(image: Image.Image, note: Note = lambda text: None) -> Image.Image:
    """Any mode to 8-bit sRGB, by the image's colour profile if it has one, else as sRGB. Transparent parts become
    white; 16-bit greys keep their upper 8 bits. A profile that cannot be used is noted.

    Raises:
        UnreadPixels: the pixels are no 8- or 16-bit numbers.
    """
    profile = _profile(image, note)
    image = _eight_bits(image)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    rgb = _by_profile(image, profile, note) if profile else None
    rgb = rgb or _plain_rgb(image, alpha is not None)
    rgb.info.pop("icc_profile", None)  # whoever saves it again would save that too
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def to_mask(image: Image.Image) -> Image.Image:
    """A mask to 8-bit grey, 255 inside. Where anything is transparent, the opaque part is inside; a mask of the numbers
    0 and 1 is scaled. Colour profiles do not matter."""
    if image.mode.startswith("I") and np.asarray(image).max() <= 1:
        return Image.fromarray(np.asarray(image).astype(np.uint8) * 255)
    image = _eight_bits(image)
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha
        image = image.convert("RGBA").convert("RGB")
    grey = image.convert("L")
    return grey.point(lambda level: level * 255) if grey.getextrema()[1] == 1 else grey


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadPixels("its pixels are floating-point numbers, 8 or 16 bits are read")
    if not image.mode.startswith("I"):
        key = image.info.get("transparency")
        if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # of a file with 16 bits
            image.info["transparency"] = tuple(level >> 8 for level in key)
        return image
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise UnreadPixels("its pixels have more than 16 bits, 8 or 16 are read")
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if (key := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(levels == key, 0, 255).astype(np.uint8)))
    return grey


def _plain_rgb(image: Image.Image, transparent: bool) -> Image.Image:
    if image.mode == "LAB":  # Pillow itself cannot
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if transparent:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _profile(image: Image.Image, note: Note) -> bytes | None:
    """The ICC profile that tells the colours of the image, if they are not plain sRGB."""
    profile = image.info.get("icc_profile")
    if profile:
        return bytes(profile)
    if "icc_profile" in image.info:
        note("the colour profile is damaged, its colours are taken for sRGB")
        return None
    return _adobe_rgb() if _is_flagged_adobe_rgb(image) else None


def _by_profile(image: Image.Image, profile: bytes, note: Note) -> Image.Image | None:
    """The image in sRGB; None if the profile cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space.strip()]
        if not _fits(mode, image.mode):
            raise ValueError(f"a profile for {mode} on an image of mode {image.mode}")
        return ImageCms.profileToProfile(
            image if image.mode == mode else image.convert("RGBA").convert(mode),
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception:  # littlecms and Pillow raise what they like on profiles that are damaged or of another kind
        note("the colour profile is damaged or of another kind, its colours are taken for sRGB")
        return None


def _fits(profile: str, image: str) -> bool:
    """Whether a profile for one mode describes an image of another."""
    if profile == "RGB":
        return image not in ("CMYK", "LAB")
    return image == profile or (profile == "L" and image in ("LA", "1"))


def _is_flagged_adobe_rgb(image: Image.Image) -> bool:
    """Whether a camera says Adobe RGB in EXIF only: interoperability index R03 (DCF 2.0)."""
    try:
        return str(image.getexif().get_ifd(ExifTags.IFD.Interop).get(1, "")).startswith("R03")
    except Exception:  # damaged EXIF data say nothing
        return False


@cache
def _adobe_rgb() -> bytes:
    """An ICC 2.1 profile of Adobe RGB (1998): its primaries adapted to D50, gamma 563/256."""
    primaries = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Adobe\0" + b"\0" * 78)]
    tags += [(b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", _xyz(0.96420, 1.0, 0.82491))]
    tags += [(name, _xyz(*one)) for name, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags:
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = struct.pack(">IIi", 128 + len(table) + len(data), 0, 0x02100000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 1998, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + _xyz(0.96420, 1.0, 0.82491)[8:]
    return head.ljust(128, b"\0") + table + data


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))
