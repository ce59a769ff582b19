"""Random pipelines of the transformer families' real classes, as small as `tests.tiny`'s: 16 x 16 images.

Schedulers carry the published checkpoints' configs, so that their shifts are at work. Chat templates are short ones of
the published kind.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mnemon.models import FAMILIES
from mnemon.models.transformer import TransformerBase
from tests.tiny import SENTENCE, device, tiny_text_config, tiny_tokenizer

SIDE = 16
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": SIDE,
    "force_upcast": False,
}
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def t5_tokenizer() -> T5Tokenizer:
    words = [f"▁{word}" for word in SENTENCE.split()]
    letters = [chr(letter) for letter in range(33, 127)]
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(
        vocab=marks + [(word, -3.0) for word in words] + [(letter, -6.0) for letter in letters], extra_ids=0
    )


def chat_tokenizer(padding_side: str = "right") -> Qwen2Tokenizer:
    """Byte-level, as Qwen's and Mistral's: a word is one token together with the space before it."""
    pieces, merges = list(bytes_to_unicode().values()), []
    for word in SENTENCE.split():
        left = "Ġ"
        for right in word:
            if left + right not in pieces:
                pieces.append(left + right)
                merges.append((left, right))
            left += right
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *MARKS])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token="<|im_end|>",
        padding_side=padding_side,
        additional_special_tokens=MARKS,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0)
    )


def qwen3_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3Config:
    return Qwen3Config(**_language(tokenizer, layers), head_dim=8)


def _language(tokenizer: Qwen2Tokenizer, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def tiny_sd3(*, seed: int = 0, t5: bool = True) -> StableDiffusion3Pipeline:
    torch.manual_seed(seed)
    first, second, third = tiny_tokenizer(), tiny_tokenizer(pad="!"), t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=24,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(**VAE, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(tiny_text_config(first, 16, 2)),
        tokenizer=first,
        text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(second, 8, 2)),
        tokenizer_2=second,
        text_encoder_3=t5_encoder(third) if t5 else None,
        tokenizer_3=third if t5 else None,
    )


def tiny_flux(*, seed: int = 0, dev: bool = True) -> FluxPipeline:
    torch.manual_seed(seed)
    clip, t5 = tiny_tokenizer(), t5_tokenizer()
    shift = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=dev,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**shift if dev else {"shift": 1.0}),
        vae=AutoencoderKL(**VAE, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(tiny_text_config(clip, 16, 2)),
        tokenizer=clip,
        text_encoder_2=t5_encoder(t5),
        tokenizer_2=t5,
    )
    pipeline.default_sample_size = 8
    return pipeline


def _flux2_parts(width: int, guidance: bool) -> dict[str, Any]:
    vae = AutoencoderKLFlux2(**{key: value for key, value in VAE.items() if key != "force_upcast"})
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * width,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return {"vae": vae, "transformer": transformer, "scheduler": scheduler}


def tiny_flux2(*, seed: int = 0) -> Flux2Pipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(padding_side="left")
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = MistralConfig(**_language(tokenizer, layers=31), head_dim=8, sliding_window=None)
    pipeline = Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(
            Mistral3Config(vision_config=vision, text_config=text, image_token_index=tokenizer.pad_token_id)
        ),
        tokenizer=tokenizer,
        **_flux2_parts(width=16, guidance=True),
    )
    pipeline.default_sample_size = 8
    return pipeline


def tiny_flux2_klein(*, seed: int = 0, is_distilled: bool = False, layers: int = 28) -> Flux2KleinPipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    pipeline = Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(qwen3_config(tokenizer, layers)),
        tokenizer=tokenizer,
        is_distilled=is_distilled,
        **_flux2_parts(width=16, guidance=False),
    )
    pipeline.default_sample_size = 8
    return pipeline


def tiny_qwen_image(*, seed: int = 0) -> QwenImagePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**_language(tokenizer, layers=2), "rope_parameters": rope}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 2.0, 0.5, 1.0],
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    shift = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    pipeline = QwenImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=tokenizer,
    )
    pipeline.default_sample_size = 8
    return pipeline


def tiny_z_image(*, seed: int = 0) -> ZImagePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 32, 32],
    )
    return ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(**VAE, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(qwen3_config(tokenizer, layers=3)),
        tokenizer=tokenizer,
    )


PIPELINES: dict[str, Callable[..., Any]] = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "flux2": tiny_flux2,
    "flux2-klein": tiny_flux2_klein,
    "qwen-image": tiny_qwen_image,
    "z-image": tiny_z_image,
}
"""By family; every call gives the same weights."""


LENGTHS = {"flux": 48, "flux2": 256, "flux2-klein": 96}
"""What `tiny_base` reads of a prompt, where a family fills up every prompt to 512 tokens: for speed."""


@cache
def shared_pipeline(family: str) -> Any:
    """One for all tests of a process: none may change its weights for good."""
    pipeline = PIPELINES[family]().to(device())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_base(family: str) -> TransformerBase:
    """A base of its own, with tokens and prompts of its own, on the weights that all share."""
    pipeline = shared_pipeline(family)
    torch.manual_seed(0)  # a test's own random numbers are the same whether the pipeline was there or not
    return base_on(pipeline, family)


def base_on(pipeline: Any, family: str) -> TransformerBase:
    base = FAMILIES[family](pipeline, name=f"tiny {family}")
    assert isinstance(base, TransformerBase)
    base.resolution = SIDE
    base.encoders[-1].length = LENGTHS.get(family, base.encoders[-1].length)
    return base
