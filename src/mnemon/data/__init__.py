"""Concepts from folders, imagefolders and list files, and their photos as tensors."""

from mnemon.data.concept import Concept, Photo
from mnemon.data.layouts import concept_from_folder, concept_from_imagefolder
from mnemon.data.listing import concepts_from_list
from mnemon.data.report import ReadingReport
from mnemon.data.tensors import masks_tensor, photo_squares, photos_tensor

__all__ = [
    "Concept",
    "Photo",
    "ReadingReport",
    "concept_from_folder",
    "concept_from_imagefolder",
    "concepts_from_list",
    "masks_tensor",
    "photo_squares",
    "photos_tensor",
]
