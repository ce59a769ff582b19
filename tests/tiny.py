"""Random pipelines of the real classes, small enough for tests: seeded, built in well under a second, no network.

Images are 16 x 16, latents 4 x 8 x 8, prompts at most 20 tokens. The tokenizer follows CLIP's conventions: byte-level
letters, merges, and at the end of the table the marks for start and end of text.
"""

import os

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mnemon.models.base import Base
from mnemon.models.sd import StableDiffusion
from mnemon.models.sdxl import StableDiffusionXL

SENTENCE = "a an of in on the and with photo picture dog cat mug car red blue green dots beach grass snow"
LENGTH = 20
END, START = "<|endoftext|>", "<|startoftext|>"
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tiny_tokenizer(pad: str = END) -> CLIPTokenizer:
    letters = list(bytes_to_unicode().values())
    pieces = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in SENTENCE.split():
        *head, last = word
        units = [*head, last + "</w>"]
        left = units[0]
        for right in units[1:]:
            if left + right not in pieces:
                pieces.append(left + right)
                merges.append((left, right))
            left += right
    vocabulary = {piece: index for index, piece in enumerate([*pieces, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=LENGTH)


def tiny_text_config(tokenizer: CLIPTokenizer, width: int, eos_token_id: int | None) -> CLIPTextConfig:
    """`eos_token_id` 2 is what the published checkpoints say; None says the tokenizer's own."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if eos_token_id is None else eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
        sample_size=16,
        scaling_factor=0.18215,
    )


def tiny_unet(width: int, **extra: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=8,
        norm_num_groups=8,
        **extra,
    )


def tiny_sd(
    *, seed: int = 0, eos_token_id: int | None = None, prediction_type: str = "epsilon"
) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    scheduler = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction_type)
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(tiny_text_config(tokenizer, 32, eos_token_id)),
        tokenizer=tokenizer,
        unet=tiny_unet(32),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_sdxl(*, seed: int = 0, eos_token_id: int | None = 2) -> StableDiffusionXLPipeline:
    torch.manual_seed(seed)
    first, second = tiny_tokenizer(), tiny_tokenizer(pad="!")
    unet = tiny_unet(
        32 + 16,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(tiny_text_config(first, 32, eos_token_id)),
        text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(second, 16, eos_token_id)),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def device() -> str:
    """Where the tests' bases are: pytest's option --device."""
    return os.environ.get("MNEMON_TEST_DEVICE", "cpu")


def tiny_sd_base(**settings: object) -> Base:
    return StableDiffusion(tiny_sd(**settings).to(device()), name="tiny")


def tiny_sdxl_base(**settings: object) -> Base:
    return StableDiffusionXL(tiny_sdxl(**settings).to(device()), name="tiny")
