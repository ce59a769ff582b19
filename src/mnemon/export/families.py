"""Which family of models a file was made for, by the names of its layers."""

import re
from collections.abc import Iterable

_SINGLE = r"single_(transformer_)?blocks[._]\d+[._]"
SIGNS: tuple[tuple[str, str], ...] = (
    ("Wan", r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|ffn)[._]"),
    ("HunyuanVideo", r"token_refiner"),
    ("FLUX.2", r"(double|single)_stream_modulation|to_qkv_mlp_proj|time_guidance_embed"),
    ("FLUX.1", rf"{_SINGLE}(proj_mlp|norm[._]linear|modulation[._]lin)|(img|txt)_mod[._]lin|vector_in"),
    ("FLUX", r"double_blocks|single_(transformer_)?blocks"),
    ("Stable Diffusion 3", r"joint_blocks|pos_embed[._]proj|norm1_context"),
    ("Qwen-Image", r"(img|txt)_(mod[._]1|mlp[._]net)"),
    ("Z-Image", r"(noise|context)_refiner|(^|[._])layers[._]\d+[._](attention|feed_forward|adaLN_modulation)[._]"),
    ("SDXL", r"lora_te2|text_encoder_2|conditioner[._]embedders|add_embedding|label_emb"),
    ("SDXL", r"(attentions|blocks?)[._]\d+[._](\d+[._])?transformer_blocks[._][1-9]"),
    ("Stable Diffusion 1 or 2", r"(down|up|mid)_blocks?[._]|(input|output|middle)_blocks?[._]|cond_stage_model"),
)
"""In this order: the first whose sign is in the name of a layer."""


def family_of(keys: Iterable[str]) -> str | None:
    """The family whose layers the keys name; None if they do not tell."""
    names = "\n".join(keys)
    return next((family for family, sign in SIGNS if re.search(sign, names, re.MULTILINE)), None)
