"""Reading user files with checks: images to upright RGB, masks to grey, texts to strings."""

import hashlib
import io
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from PIL import Image, ImageOps

from mnemon.data.colour import Note, UnreadPixels, to_mask, to_rgb
from mnemon.data.concept import Photo
from mnemon.errors import MnemonError

MAX_PIXELS = 50_000_000
"""Largest image read by default, in pixels: a 48-megapixel photo passes."""

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff")
HEIC = (".heic", ".heif")
NEEDS_HEIC = "HEIC is read with the extra `heic` (pip install 'mnemon[heic]'), or save it as JPEG"

# Formats that Pillow may try. MPO, the multi-image JPEG of many phones, comes in through its JPEG reader.
_FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF"]


@dataclass(frozen=True)
class StoredImage:
    """An image file that has been checked: decoded whenever it is called, and kept nowhere.

    Attributes:
        sha256: of the file when it was checked.
        convert: what is made of the upright image.
    """

    path: Path
    sha256: str
    max_pixels: int = MAX_PIXELS
    convert: Callable[[Image.Image], Image.Image] = to_rgb

    def __call__(self, side: int | None = None) -> Image.Image:
        """The image, upright; with `side` JPEGs may be scaled down by 2, 4 or 8, but no side to fewer pixels.

        Raises:
            MnemonError: the file is gone, or is another one now.
        """
        content = read_bytes(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise MnemonError(f"The image '{self.path}' was changed while it was in use: run the command again.")
        return _decode(self.path, content, self.max_pixels, self.convert, side)


def is_image(path: Path) -> bool:
    """Whether it is one by its suffix; HEIC with the extra only."""
    suffix = path.suffix.lower()
    known = suffix in SUFFIXES or (suffix in HEIC and find_spec("pillow_heif") is not None)
    return known and not path.is_dir()


def read_photo(
    path: Path, *, max_pixels: int = MAX_PIXELS, caption: str | None = None, note: Note = lambda text: None
) -> Photo:
    """Check one image by decoding it; the photo decodes it again when it is used, so that it takes no memory.

    Whatever its mode, it comes out upright as its EXIF data say, in sRGB by its colour profile (`to_rgb`). The format
    is taken from the content, not from the name. Of several frames the first is read, and noted.

    Args:
        note: called with what is worth a word, without the file's name.

    Raises:
        MnemonError: the file is missing, empty, damaged, of a format that is not read, or has more than `max_pixels`
            pixels (checked before anything is decoded).
    """
    content = read_bytes(path)
    _decode(path, content, max_pixels, lambda image: to_rgb(image, note), side=1, note=note)
    sha256 = hashlib.sha256(content).hexdigest()
    return Photo(StoredImage(path, sha256, max_pixels), source=str(path), sha256=sha256, caption=caption)


def read_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A mask in the orientation of its EXIF data, 8-bit grey, 255 inside, as `to_mask` says.

    Raises:
        MnemonError: as `read_photo`, or nothing is inside.
    """
    mask = _decode(path, read_bytes(path), max_pixels, to_mask)
    if mask.getextrema()[1] == 0:
        raise MnemonError(f"The mask '{path}' is black all over: paint white what counts, or delete it.")
    return mask


def stored_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> StoredImage:
    """A mask that is decoded, and checked, when it is used: a damaged one is in nobody's way before.

    Raises:
        MnemonError: the file cannot be read.
    """
    return StoredImage(path, hashlib.sha256(read_bytes(path)).hexdigest(), max_pixels, to_mask)


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        MnemonError: the file cannot be read, or is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(path) from error
    if "\0" in text:  # UTF-16 of plain letters
        raise _no_text(path)
    return text


def read_bytes(path: Path) -> bytes:
    """Raises:
    MnemonError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MnemonError(f"There is no file '{path}': check the path and how the name is spelled.") from error
    except OSError as error:
        raise MnemonError(f"The file '{path}' cannot be read ({error.strerror}): check its permissions.") from error


def _no_text(path: Path) -> MnemonError:
    return MnemonError(f"The file '{path}' is not UTF-8 text: save it again with that encoding.")


def _decode(
    path: Path,
    content: bytes,
    max_pixels: int,
    convert: Callable[[Image.Image], Image.Image],
    side: int | None = None,
    note: Note = lambda text: None,
) -> Image.Image:
    if not content:
        raise MnemonError(f"The image '{path}' is empty (0 bytes): copy it again from where it came, or delete it.")
    with _QUIET:
        image = _opened(path, content, max_pixels)
        try:
            if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
                note(f"the first of {frames} frames is read")
            if side is not None:
                image.draft(None, (side, side))
            ImageOps.exif_transpose(image, in_place=True)
            return convert(image)
        except UnreadPixels as error:
            raise MnemonError(f"The image '{path}' is not read: {error}. Save it again, for example as PNG.") from error
        except Exception as error:  # decoders raise what they like on damaged files
            raise MnemonError(
                f"The image '{path}' is truncated or damaged ({error}): copy it again from where it came, or delete it."
            ) from error


def _opened(path: Path, content: bytes, max_pixels: int) -> Image.Image:
    """Only the header is read."""
    try:
        image = Image.open(io.BytesIO(content), formats=[*_FORMATS, *_heif(path, content)])
    except Image.DecompressionBombError as error:
        raise _too_large(path, max_pixels) from error
    except MnemonError:
        raise
    except Exception as error:
        raise MnemonError(
            f"The file '{path}' is no readable JPEG, PNG or WebP image, nor AVIF, BMP, GIF or TIFF, whatever its "
            "name says: save it again as one of these, or delete it."
        ) from error
    if image.width * image.height > max_pixels:
        raise _too_large(path, max_pixels, image.size)
    return image


def _heif(path: Path, content: bytes) -> list[str]:
    """Pillow's name of HEIF, if this file is one.

    Raises:
        MnemonError: it is, and the extra that reads it is not installed.
    """
    if content[4:8] != b"ftyp" or content[8:12] not in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
        return []
    if content[8:12] in (b"mif1", b"msf1") and b"avif" in content[12:64]:
        return []
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise MnemonError(f"'{path}' is a HEIC photo: {NEEDS_HEIC}.") from None
    register_heif_opener()
    return ["HEIF"]


class _QuietPillow:
    """Ignores Pillow's warnings of odd metadata, which are harmless, and of size, which is checked, while any thread
    decodes: `catch_warnings` alone is not safe between threads."""

    def __init__(self) -> None:
        self._lock, self._running, self._caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._running:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._running += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._caught.__exit__(None, None, None)


_QUIET = _QuietPillow()


def _too_large(path: Path, max_pixels: int, size: tuple[int, int] | None = None) -> MnemonError:
    shape = f" ({size[0]} x {size[1]})" if size else ""
    return MnemonError(
        f"The image '{path}'{shape} has more pixels than the limit of {max_pixels:,}: "
        "scale it down; 2000 pixels a side are plenty."
    )
