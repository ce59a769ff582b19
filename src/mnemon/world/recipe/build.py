"""The recipe of the built-in base, from nothing to a diffusers folder, in one resumable call.

Stages: images, teacher, judge, autoencoder, CLIP, denoiser, assembly. Each keeps its state in the working folder; a
killed build resumes from its last checkpoint. Stages have gates (`gates.py`).
"""

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from rich.console import Console
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemon.errors import MnemonError
from mnemon.files import set_default_modes, write_json
from mnemon.tensor_files import write_safetensors
from mnemon.world.encoder import ImageEncoder, packed
from mnemon.world.recipe import images as rendering
from mnemon.world.recipe.autoencoder import autoencoder_figures, encode, train_autoencoder
from mnemon.world.recipe.denoiser import caption_ids, new_scheduler, tokenize, train_clip, train_denoiser
from mnemon.world.recipe.encoders import encoder_figures, instance_top1, train_encoder
from mnemon.world.recipe.fit import Schedule
from mnemon.world.recipe.gates import require, sampling_figures
from mnemon.world.recipe.images import Images, to_input
from mnemon.world.recipe.tokenizer import build_tokenizer

SHARD = "15MB"
"""No shipped file is larger."""


@dataclass(frozen=True)
class Recipe:
    """Sizes, steps and batches of every stage. The shipped base was built with the defaults."""

    seed: int = 1
    scenes: int = 40_000
    pairs: int = 8_000
    judge_scenes: int = 16_000
    judge_pairs: int = 6_000
    test_scenes: int = 2_000
    test_pairs: int = 1_000
    encoder_steps: int = 1_400
    encoder_batch: int = 64
    autoencoder_steps: int = 1_700
    autoencoder_batch: int = 16
    clip_steps: int = 800
    clip_batch: int = 128
    denoiser_steps: int = 4_900
    denoiser_rate: float = 8e-4
    denoiser_batch: int = 32
    test_prompts: int = 240
    sampling_steps: int = 20


def build(out: Path, work: Path, recipe: Recipe, *, force: bool = False) -> dict[str, float]:
    """Train the base into `out` and return its figures.

    Args:
        out: the diffusers folder to write; replaced only when everything is done.
        work: for images and checkpoints (about 2 GB); calling again with the same folder resumes.
        force: go on after a missed gate.

    Raises:
        MnemonError: a stage missed its gate and `force` is off.
    """
    _same_recipe(work, recipe)
    log = _Log(force)
    log.console.print("Rendering images")
    scenes = rendering.scenes(work, recipe.seed, recipe.scenes)
    pairs = rendering.pairs(work, recipe.seed, recipe.pairs)
    teacher, log.seconds["teacher"] = _encoder("teacher", work, recipe, scenes, pairs, seed=10, present=False)
    judge = _judge(work, recipe, log)
    autoencoder, log.seconds["autoencoder"] = train_autoencoder(
        work,
        scenes,
        pairs,
        teacher,
        seed=recipe.seed + 11,
        steps=recipe.autoencoder_steps,
        batch=recipe.autoencoder_batch,
    )
    log.passed("autoencoder", autoencoder_figures(autoencoder, judge, _test_pairs(work, recipe)))
    pipeline, clip_image, clip_text = _train_pipeline(work, recipe, _join(scenes, pairs), teacher, autoencoder, log)
    sampled = sampling_figures(
        lambda prompts: _sample(pipeline, prompts, recipe), judge, count=recipe.test_prompts, seed=recipe.seed + 3
    )
    machine = f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
    facts = {"recipe": asdict(recipe), "seconds": log.seconds, "machine": machine}
    fresh = out.with_name(out.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    _save(fresh, pipeline, judge, clip_image, clip_text)
    write_json(fresh / "figures.json", {"figures": log.figures | sampled, **facts})
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    log.passed("denoiser", sampled)
    return log.figures


class _Log:
    """Seconds and figures of the stages."""

    def __init__(self, force: bool) -> None:
        self.force = force
        self.console = Console(stderr=True)
        self.seconds: dict[str, float] = {}
        self.figures: dict[str, float] = {}

    def passed(self, stage: str, figures: dict[str, float]) -> None:
        """Record a stage's figures and check its gate."""
        self.figures |= figures
        self.console.print(stage, figures)
        require(stage, self.figures, force=self.force)


def _same_recipe(work: Path, recipe: Recipe) -> None:
    """Refuses checkpoints of another recipe; what the note of an older version does not mention is as by default."""
    note = work / "recipe.json"
    if note.exists() and asdict(Recipe()) | json.loads(note.read_text(encoding="utf-8")) != asdict(recipe):
        raise MnemonError(f"{work} holds the work on another recipe: give --work another folder, or empty this one.")
    write_json(note, asdict(recipe))


def _encoder(
    name: str, work: Path, recipe: Recipe, scenes: Images, pairs: Images, *, seed: int, present: bool
) -> tuple[ImageEncoder, float]:
    """As `train_encoder`, by the recipe; `seed` counts from the recipe's."""
    steps, batch, seed = recipe.encoder_steps, recipe.encoder_batch, recipe.seed + seed
    return train_encoder(name, work, scenes, pairs, seed=seed, steps=steps, batch=batch, present=present)


def _judge(work: Path, recipe: Recipe, log: _Log) -> ImageEncoder:
    scenes = rendering.scenes(work, recipe.seed + 1, recipe.judge_scenes)
    pairs = rendering.pairs(work, recipe.seed + 1, recipe.judge_pairs)
    judge, log.seconds["judge"] = _encoder("judge", work, recipe, scenes, pairs, seed=20, present=True)
    test_scenes, test_pairs = rendering.scenes(work, recipe.seed + 2, recipe.test_scenes), _test_pairs(work, recipe)
    log.console.print("judge", encoder_figures(judge, test_scenes, test_pairs))
    log.passed("judge", {"identity_top1_of_200": instance_top1(judge, test_pairs)})
    return judge


def _test_pairs(work: Path, recipe: Recipe) -> Images:
    return rendering.pairs(work, recipe.seed + 2, recipe.test_pairs)


def _train_pipeline(
    work: Path, recipe: Recipe, images: Images, teacher: ImageEncoder, autoencoder: AutoencoderKL, log: _Log
) -> tuple[StableDiffusionPipeline, ImageEncoder, CLIPTextModelWithProjection]:
    """The pipeline, and CLIP's two halves."""
    tokenizer = build_tokenizer(work / "tokenizer")
    ids = caption_ids(tokenizer, images)
    clip_image, clip_text, log.seconds["clip"] = train_clip(
        work,
        images,
        ids,
        teacher,
        tokenizer,
        seed=recipe.seed + 12,
        steps=recipe.clip_steps,
        batch=recipe.clip_batch,
    )
    text = CLIPTextModel(clip_text.config)
    text.load_state_dict(_text_weights(clip_text))
    unet, text, log.seconds["denoiser"] = train_denoiser(
        work,
        _latents(autoencoder, images),
        _teacher_features(teacher, images),
        images.mask,
        ids,
        text,
        tokenize(tokenizer, [""])[0],
        seed=recipe.seed + 13,
        schedule=Schedule(recipe.denoiser_steps, recipe.denoiser_rate, warmup=300, hold=0.4, floor=0.02),
        batch=recipe.denoiser_batch,
    )
    return _pipeline(autoencoder, unet, text, tokenizer), clip_image, clip_text


def _join(one: Images, two: Images) -> Images:
    return Images(
        torch.cat([one.pixels, two.pixels]),
        torch.cat([one.mask, two.mask]),
        torch.cat([one.present, two.present]),
        {name: torch.cat([one.labels[name], two.labels[name]]) for name in one.labels},
        one.captions + two.captions,
    )


def _text_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """CLIP's text model without its projection, under the names of `CLIPTextModel`."""
    inner = {key: value for key, value in model.state_dict().items() if not key.startswith("text_projection")}
    own = set(CLIPTextModel(model.config).state_dict())
    return {key if key in own else key.removeprefix("text_model."): value for key, value in inner.items()}


@torch.no_grad()
def _latents(autoencoder: AutoencoderKL, images: Images) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        parts = [encode(autoencoder, to_input(rows)).float() for rows in images.pixels.split(256)]
    return torch.cat(parts)


@torch.no_grad()
def _teacher_features(teacher: ImageEncoder, images: Images) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        parts = [teacher.features(to_input(rows))[-1].bfloat16() for rows in images.pixels.split(512)]
    features = torch.cat(parts)
    return features - features[:4000].float().mean(dim=(0, 2, 3), keepdim=True).bfloat16()


def _pipeline(
    autoencoder: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline(
        autoencoder, text, tokenizer, unet, new_scheduler(), None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def _sample(pipeline: StableDiffusionPipeline, prompts: Sequence[str], recipe: Recipe) -> Tensor:
    """Images (n, 3, 64, 64) in -1..1, by DDIM with guidance 4."""
    generator = torch.Generator().manual_seed(recipe.seed + 5000)
    parts = []
    for start in range(0, len(prompts), 48):
        sampled = pipeline(
            list(prompts[start : start + 48]),
            num_inference_steps=recipe.sampling_steps,
            guidance_scale=4.0,
            generator=generator,
            output_type="pt",
        ).images
        parts.append(sampled * 2 - 1)
    return torch.cat(parts)


def _save(
    folder: Path,
    pipeline: StableDiffusionPipeline,
    judge: ImageEncoder,
    clip_image: ImageEncoder,
    clip_text: CLIPTextModelWithProjection,
) -> None:
    """The pipeline and the encoders, in half precision and in shards."""
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True, max_shard_size=SHARD)
    # transformers opens a model in the precision its config names; the pipeline's other parts open in single precision.
    config = folder / "text_encoder" / "config.json"
    write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"})
    encoders = folder / "encoders"
    for name, encoder in {"judge": judge, "clip_image": clip_image}.items():
        state = encoder.state_dict()
        halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        # The judge decides whether a base is good enough, so it keeps half precision.
        write_safetensors(encoders / f"{name}.safetensors", halves if name == "judge" else packed(state))
        heads = {head: layer.out_features for head, layer in encoder.heads.items()}
        write_json(encoders / f"{name}.json", {"heads": heads, "embedding": encoder.embedding})
    clip_text.half().save_pretrained(encoders / "clip_text")
    set_default_modes(folder)
