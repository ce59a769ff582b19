"""A stand-in for the built-in base: random and tiny, in the folder layout and with the words of the real one.

It is opened by its path, taught and scored in well under a second.
"""

from pathlib import Path

import torch
from transformers import CLIPTextModel

from mnemon.world.recipe.tokenizer import build_tokenizer
from tests.evaluation.worlds import world_folder
from tests.tiny import tiny_sd, tiny_text_config


def worldlike_folder(folder: Path) -> Path:
    """A diffusers pipeline for images of 16 x 16, with the world's encoders beside it."""
    tokenizer = build_tokenizer(folder / "tokenizer")
    pipeline = tiny_sd()
    torch.manual_seed(1)
    text = CLIPTextModel(tiny_text_config(tokenizer, 32, None))
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=text)
    pipeline.save_pretrained(folder)
    return world_folder(folder, tokenizer)
