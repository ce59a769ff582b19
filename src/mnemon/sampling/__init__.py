"""Images from a base, bare or with the concepts of a library in it."""

from mnemon.sampling.composing import Composed
from mnemon.sampling.images import ImageMetadata, image_strip, read_facts, sampler_name, save_image, to_image
from mnemon.sampling.sampler import sample

__all__ = ["Composed", "ImageMetadata", "image_strip", "sample", "read_facts", "sampler_name", "save_image", "to_image"]
