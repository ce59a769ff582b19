"""Pictures from a base, bare or with the concepts of a library in it."""

from mnemon.sampling.composing import Composed
from mnemon.sampling.drawing import draw
from mnemon.sampling.pictures import PictureFacts, read_facts, sampler_name, save_picture, to_image

__all__ = ["Composed", "PictureFacts", "draw", "read_facts", "sampler_name", "save_picture", "to_image"]
