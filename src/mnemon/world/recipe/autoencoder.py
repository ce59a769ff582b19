"""Stage 2 of the recipe: the autoencoder, 64 × 64 × 3 images to 8 × 8 × 16 latents.

No concept can be sampled better than it is reconstructed, so it trains on renders in free colours too, and on the
teacher's features beside the pixels.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mnemon.world.encoder import ImageEncoder
from mnemon.world.recipe.fit import EMA, Schedule, channels_last, fit, random_rows
from mnemon.world.recipe.images import Images, to_input

CHANNELS = 16


def new_autoencoder(seed: int) -> AutoencoderKL:
    torch.manual_seed(seed)
    widths = (16, 48, 96, 128)
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    return channels_last(model)


def train_autoencoder(
    folder: Path, images: Images, pairs: Images, teacher: ImageEncoder, *, seed: int, steps: int, batch: int
) -> tuple[AutoencoderKL, float]:
    """The EMA autoencoder with latents of unit variance, and the seconds of training."""
    model = new_autoencoder(seed)
    average = EMA(model, decay=0.998)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        half = batch // 2
        scene_rows, pair_rows = (random_rows(generator, len(source), half) for source in (images, pairs))
        pixels = torch.cat([images.pixels[scene_rows], pairs.pixels[pair_rows]])
        clean = to_input(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            moments = model.quant_conv(model.encoder(clean))
            mean, log_variance = moments.float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-20, 10)
            noise = torch.randn(mean.shape, generator=generator)
            latents = mean + noise * (log_variance / 2).exp()
            reconstructed = model.decoder(model.post_quant_conv(latents))
            features = _feature_distance(teacher, reconstructed, clean)
        reconstructed = reconstructed.float()
        pixel = (reconstructed - clean).abs().mean()
        gradient = _gradient_distance(reconstructed, clean)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        total = pixel + 0.5 * gradient + 0.15 * features + 3e-4 * divergence
        return total, {"pixel": pixel.item(), "features": features.item(), "kl": divergence.item()}

    schedule = Schedule(steps, 1.2e-3, warmup=100, hold=0.3, weight_decay=0.0, muon=12.0)
    seconds = fit("autoencoder", folder, {"model": model}, loss, schedule, seed=seed, averages={"model": average})
    shadow = average.shadow.eval()
    _whiten(shadow, images)
    return shadow, seconds


def _feature_distance(teacher: ImageEncoder, reconstructed: Tensor, clean: Tensor) -> Tensor:
    """Relative L1 over the teacher's four stages."""
    with torch.no_grad():
        target_features = teacher.features(clean)
    features = teacher.features(reconstructed)
    parts = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(features, target_features, strict=True)]
    return torch.stack(parts).float().mean()


def _gradient_distance(a: Tensor, b: Tensor) -> Tensor:
    error = a - b
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.no_grad()
def _whiten(model: AutoencoderKL, images: Images) -> None:
    """Merge each latent channel's mean and std into the model, so that `scaling_factor` 1 is right.

    `StableDiffusionPipeline` has one factor for all channels; the denoiser needs unit variance in each.
    """
    latents = torch.cat([encode(model, to_input(rows)) for rows in images.pixels[:4000].split(250)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out = model.quant_conv, model.post_quant_conv
    out.bias += (out.weight[:, :, 0, 0] * mean).sum(1)
    out.weight *= std[None, :, None, None]
    into.weight[:CHANNELS] /= std[:, None, None, None]
    into.bias[:CHANNELS] = (into.bias[:CHANNELS] - mean) / std
    into.bias[CHANNELS:] -= 2 * std.log()


@torch.no_grad()
def encode(model: AutoencoderKL, images: Tensor) -> Tensor:
    """The mean latents (n, 16, 8, 8) of images (n, 3, 64, 64)."""
    return model.encode(images).latent_dist.mean


@torch.no_grad()
def autoencoder_figures(model: AutoencoderKL, judge: ImageEncoder, pairs: Images) -> dict[str, float]:
    """PSNR in dB of images in 0..1, and identity of reconstructions relative to that of two renders, by the judge."""
    clean = to_input(pairs.pixels[:800])
    reconstructed = torch.cat([model.decode(encode(model, rows)).sample for rows in clean.split(100)]).clamp(-1, 1)
    error = ((reconstructed - clean) / 2).square().mean(dim=(1, 2, 3))
    one, other, again = judge(clean[0::2]), judge(clean[1::2]), judge(reconstructed[0::2])
    ceiling = float((one * other).sum(1).mean())
    return {
        "autoencoder_psnr_db": float((-10 * error.log10()).mean()),
        "reconstruction_identity_ratio": float((again * other).sum(1).mean()) / ceiling,
        "reconstruction_identity": float((again * one).sum(1).mean()),
        "identity_ceiling": ceiling,
    }
