"""Small random encoders in the folders that the real ones come in."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer, ViTConfig, ViTModel

from mnemon.files import write_json
from mnemon.tensor_files import write_safetensors
from mnemon.world.encoder import ImageEncoder
from tests.tiny import tiny_text_config, tiny_tokenizer

SIDE = 64


def world_folder(folder: Path, tokenizer: CLIPTokenizer | None = None) -> Path:
    """As much of a base's folder as holds the world's encoders."""
    torch.manual_seed(0)
    for name, heads in {"judge": {"noun": 12, "colour": 10}, "clip_image": {}}.items():
        encoder = ImageEncoder(heads, embedding=32)
        write_safetensors(folder / "encoders" / f"{name}.safetensors", encoder.state_dict())
        write_json(folder / "encoders" / f"{name}.json", {"heads": heads, "embedding": 32})
    tokenizer = tokenizer or tiny_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    text = CLIPTextModelWithProjection(tiny_text_config(tokenizer, 32, None))
    text.half().save_pretrained(folder / "encoders" / "clip_text")
    return folder


def hub_folders(folder: Path) -> tuple[str, str]:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**shape, "image_size": 32, "patch_size": 16}
    text = tiny_text_config(tokenizer, 32, None).to_dict()
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    ViTModel(ViTConfig(**vision), add_pooling_layer=False).save_pretrained(folder / "dino")
    return str(folder / "clip"), str(folder / "dino")


def images(count: int, height: int = SIDE, width: int = SIDE, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
