"""Textual-inversion files: one per token, with its vectors for all text encoders."""

from torch import Tensor

from mnemon.export.naming import DIFFUSERS, Naming, embedding_key
from mnemon.models import Tokens


def embedding_tensors(naming: Naming, name: str, tokens: Tokens, format: str) -> dict[str, Tensor]:
    """A token's vectors (vectors, width) by key.

    With a single CLIP encoder the key is `emb_params`, which A1111, ComfyUI and kohya's scripts read, or in diffusers'
    format the token itself, which `load_textual_inversion` takes as its name. Otherwise each encoder has its own key:
    `clip_l`, `clip_g`, `t5xxl`, or the name of a language model.
    """
    stored = {encoder: vectors.detach().float().cpu() for encoder, vectors in tokens.items()}
    if len(stored) == 1 and naming.denoiser == "unet":
        (vectors,) = stored.values()
        return {f"<{name}>" if format == DIFFUSERS else "emb_params": vectors}
    return {embedding_key(naming, encoder, vectors.shape[1]): vectors for encoder, vectors in stored.items()}


def embedding_file(name: str) -> str:
    """The path of a token's file in an export; its stem is the trigger in ComfyUI and A1111."""
    return f"embeddings/{name}.safetensors"
