"""How much of a Stable Diffusion 1.5 a concept of CNS changes: the real architecture with random weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mnemon.methods import Start, neuron_masks
from mnemon.methods.cns import Cns
from mnemon.models.sd import StableDiffusion
from tests.tiny import NOISE, tiny_tokenizer


@contextmanager
def without_values() -> Iterator[None]:
    """Modules made within the block have shapes, and no memory."""
    with torch.device("meta"):
        yield


def sd15() -> StableDiffusion:
    """With real numbers in the text encoder, the target modules, and the U-Net's first layer, which has the device."""
    tokenizer = tiny_tokenizer()
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            **marks,
        )
    )
    with without_values():
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
    unet.conv_in = nn.Conv2d(4, 320, 3, padding=1)
    scheduler = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    base = StableDiffusion(pipeline, "sd15", fingerprint="random")
    for layer in base.target_modules().values():
        layer.weight = nn.Parameter(torch.randn(layer.weight.shape) / 768**0.5, requires_grad=False)
    return base


@pytest.mark.slow
def test_a_concept_changes_at_most_15_weights_in_10_000() -> None:
    base = sd15()
    pipeline = base.pipeline()
    sizes = {
        part: sum(parameter.numel() for parameter in getattr(pipeline, part).parameters())
        for part in ("unet", "vae", "text_encoder")
    }
    assert sizes == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert sum(layer.weight.numel() for layer in base.target_modules().values()) == 19_169_280
    generator = torch.Generator().manual_seed(0)
    learner = Cns(score="wanda", token_share=0.0).begin(Start("rex", "dog", base, [], generator))
    learner.on_train_start(lambda _: torch.zeros(()), None, generator)
    with torch.no_grad():
        learner.values += 1  # what training does to every entry
    learned = learner.export()
    changed = sum(int(delta.matrix().count_nonzero()) for delta in learned.deltas.values()) + 768
    assert changed == neuron_masks.entries(neuron_masks.stored_masks(learned)) + 768
    assert 0 < changed / sum(sizes.values()) <= 0.0015
    print(f"changed: {changed:,} of {sum(sizes.values()):,}, {changed / sum(sizes.values()):.4%}; {learned.facts}")
