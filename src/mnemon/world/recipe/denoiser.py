"""Stages 3 and 4 of the recipe: the small CLIP, and the denoiser with its text model.

The text model starts as CLIP's and trains on with the U-Net. Two things let a small U-Net learn outlines within an hour
on two cores: uniform loss weights over the timesteps, and representation alignment (arXiv 2410.06940), which aligns the
U-Net's middle features with the teacher's features of the clean image.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemon.world.encoder import ImageEncoder, contrastive_loss
from mnemon.world.recipe.fit import EMA, Schedule, channels_last, fit, random_rows
from mnemon.world.recipe.images import CAPTIONS, Images, to_input

WIDTH = 192  # of the text model
ALIGNMENT = 0.5
THING_WEIGHT = 3.0  # of a place covered by a thing, against 1 for the background
PROMPT_DROPOUT = 0.1


def new_text_model(tokenizer: CLIPTokenizer, seed: int) -> CLIPTextModelWithProjection:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids (n, length), padded to the model's length."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def caption_ids(tokenizer: CLIPTokenizer, images: Images) -> Tensor:
    """Token ids of all captions, (images, CAPTIONS, length)."""
    flat = [caption for captions in images.captions for caption in captions]
    return tokenize(tokenizer, flat).reshape(len(images), CAPTIONS, -1)


def train_clip(
    folder: Path,
    images: Images,
    ids: Tensor,
    teacher: ImageEncoder,
    tokenizer: CLIPTokenizer,
    *,
    seed: int,
    steps: int,
    batch: int,
) -> tuple[ImageEncoder, CLIPTextModelWithProjection, float]:
    """CLIP's image side (initialised from the teacher's convolutions), its text side, and the seconds of training."""
    text = new_text_model(tokenizer, seed)
    image = channels_last(ImageEncoder({}, embedding=128))
    image.stages.load_state_dict(teacher.stages.state_dict())
    scale = _Scale()

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = random_rows(generator, len(images), batch)
        with torch.autocast("cpu", torch.bfloat16):
            image_embeds = image(to_input(images.pixels[rows]))
            text_embeds = text(input_ids=ids[rows, random_rows(generator, CAPTIONS, batch)]).text_embeds
        value = contrastive_loss(image_embeds, nn.functional.normalize(text_embeds.float(), dim=-1), scale())
        return value, {"clip": value.item()}

    modules = {"image": image, "text": text, "scale": scale}
    seconds = fit("clip", folder, modules, loss, Schedule(steps, 1e-3, warmup=100), seed=seed)
    return image.eval().requires_grad_(False), text.eval().requires_grad_(False), seconds


class _Scale(nn.Module):
    """The trained inverse temperature of the contrastive loss, at most 60."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(2.7))

    def forward(self) -> Tensor:
        return self.log.exp().clamp(max=60)


def new_unet(seed: int, channels: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(128, 256),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(4, 8),  # diffusers reads this as the number of heads: 32 channels each
        norm_num_groups=32,
    )
    return channels_last(unet)


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # expected by the pipeline; without effect on trailing steps
        timestep_spacing="trailing",
    )


def train_denoiser(
    folder: Path,
    latents: Tensor,
    features: Tensor,
    mask: Tensor,
    ids: Tensor,
    text: CLIPTextModel,
    empty: Tensor,
    *,
    seed: int,
    schedule: Schedule,
    batch: int = 32,
) -> tuple[UNet2DConditionModel, CLIPTextModel, float]:
    """The EMA U-Net and text model, and the seconds of training.

    Args:
        latents: (n, c, 8, 8).
        features: (n, 192, 4, 4), the teacher's of the clean images, minus their mean.
        mask: (n, 8, 8), share of each place covered by things.
        ids: (n, CAPTIONS, length), the captions' token ids.
        empty: (length,), the token ids of the empty prompt.
    """
    unet = new_unet(seed, latents.shape[1])
    side = nn.Sequential(nn.Conv2d(256, 256, 1), nn.SiLU(), nn.Conv2d(256, features.shape[1], 1))
    captured: list[Tensor] = []
    alphas = new_scheduler().alphas_cumprod
    unet.mid_block.register_forward_hook(lambda _module, _inputs, output: captured.append(output))

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = random_rows(generator, len(latents), batch)
        tokens = ids[rows, random_rows(generator, CAPTIONS, batch)]
        dropped = torch.rand(batch, generator=generator) < PROMPT_DROPOUT
        tokens = torch.where(dropped[:, None], empty, tokens)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = random_rows(generator, len(alphas), batch)
        signal = alphas[timesteps].sqrt()[:, None, None, None]
        spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
        noisy = (signal * clean + spread * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noisy, timesteps, text(input_ids=tokens).last_hidden_state).sample
            aligned = side(captured.pop())
        error = (predicted.float() - (signal * noise - spread * clean)).square().mean(1)
        velocity = (error * (1 + (THING_WEIGHT - 1) * mask[rows])).mean()
        cosine = nn.functional.cosine_similarity(aligned.float(), features[rows].float(), dim=1).mean()
        return velocity + ALIGNMENT * (1 - cosine), {"velocity": velocity.item(), "cosine": cosine.item()}

    averages = {"unet": EMA(unet), "text": EMA(text)}
    modules = {"unet": unet, "text": text, "side": side}
    seconds = fit("denoiser", folder, modules, loss, schedule, seed=seed, averages=averages)
    return averages["unet"].shadow.eval(), averages["text"].shadow.eval(), seconds
