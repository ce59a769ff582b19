"""Images from a base, bare or with the concepts of a library in it."""

from mnemon.sampling.composing import Composed
from mnemon.sampling.images import ImageMetadata, image_strip, read_metadata, sampler_name, save_image, to_image
from mnemon.sampling.sampler import SamplingSettings, fitted, sample

__all__ = [
    "Composed",
    "ImageMetadata",
    "SamplingSettings",
    "fitted",
    "image_strip",
    "read_metadata",
    "sample",
    "sampler_name",
    "save_image",
    "to_image",
]
