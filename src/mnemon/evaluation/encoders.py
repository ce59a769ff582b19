"""Encoders of images and prompts, whose features are compared by cosine."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import AutoModel, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemon.errors import MnemonError
from mnemon.models.pipeline_folder import without_bars
from mnemon.world.encoder import ImageEncoder, unpacked

_BATCH = 64  # images or prompts at a time
_WORLD_SIDE = 64
_CLIP_NORM = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, std
_IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Encoders(Protocol):
    """Images are (n, 3, height, width) in 0..1, of any size; features are unit vectors in fp32 on the CPU.

    Attributes:
        name: as reports give it.
        prompts: the set of evaluation prompts whose words they know, a key of `mnemon.evaluation.prompts.PROMPTS`.
    """

    name: str
    prompts: str

    def image(self, images: Tensor) -> Tensor:
        """(n, d) features that can be compared with those of other images and of prompts."""
        ...

    def identity(self, images: Tensor) -> Tensor:
        """(n, d') features that are alike for images of one and the same instance, in any pose and place."""
        ...

    def text(self, prompts: list[str]) -> Tensor:
        """(n, d) features of prompts, in the space of `image`. Concept tokens mean nothing here: write words."""
        ...


class WorldEncoders:
    """The built-in world's own encoders, kept with its base.

    `folder` is the base's folder: `encoders/judge` and `encoders/clip_image` (safetensors and JSON each), the text side
    in `encoders/clip_text`, and the pipeline's `tokenizer`.

    Raises:
        MnemonError: a file is missing.
    """

    prompts = "world"

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.name = "world"
        self._device = torch.device(device)
        self._folder = folder
        if not _is_world(folder):
            raise MnemonError(f"The folder {folder} holds no encoders of the built-in world: give that of its base.")

    @cached_property
    def identity_encoder(self) -> ImageEncoder:
        """Tells instances apart, and classifies noun, colour, pattern and background. Trained apart from the base."""
        return self._image_encoder("judge")

    def image(self, images: Tensor) -> Tensor:
        return self._look(self._clip_image, images)

    def identity(self, images: Tensor) -> Tensor:
        return self._look(self.identity_encoder, images)

    def text(self, prompts: list[str]) -> Tensor:
        tokenizer, model = self._clip_text
        return _in_batches(lambda part: model(**_tokens(tokenizer, part, self._device)).text_embeds, prompts)

    def attributes(self, images: Tensor) -> dict[str, Tensor]:
        """The identity encoder's logits (n, classes) for each of its heads."""
        parts = [self.identity_encoder.classify(self._world_input(part)) for part in images.split(_BATCH)]
        return {head: torch.cat([part[head] for part in parts]).cpu() for head in parts[0]}

    def _look(self, model: ImageEncoder, images: Tensor) -> Tensor:
        return _in_batches(lambda part: model(self._world_input(part)), images)

    def _world_input(self, images: Tensor) -> Tensor:
        return _square(images.to(self._device), _WORLD_SIDE) * 2 - 1

    @cached_property
    def _clip_image(self) -> ImageEncoder:
        return self._image_encoder("clip_image")

    @cached_property
    def _clip_text(self) -> tuple[Any, Any]:
        tokenizer = CLIPTokenizer.from_pretrained(self._folder / "tokenizer")
        with without_bars():
            model = CLIPTextModelWithProjection.from_pretrained(
                self._folder / "encoders" / "clip_text", use_safetensors=True, dtype=torch.float32
            )
        return tokenizer, model.to(self._device).eval().requires_grad_(False)

    def _image_encoder(self, name: str) -> ImageEncoder:
        path = self._folder / "encoders" / name
        try:
            shape = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            encoder = ImageEncoder(shape["heads"], shape["embedding"])
            encoder.load_state_dict(unpacked(load_file(path.with_suffix(".safetensors"))))
        except FileNotFoundError as error:
            raise MnemonError(f"The base's folder lacks {error.filename}: build or install the base again.") from None
        return encoder.to(self._device).eval().requires_grad_(False)


class HubEncoders:
    """CLIP and DINO from the hub or from folders, for photographs. Nothing is loaded before it is needed.

    Images are cropped to the middle square and resized bicubically here, as the published preprocessing does.

    Raises (at first use):
        MnemonError: a model cannot be loaded, or has no safetensors weights.
    """

    prompts = "photographs"

    def __init__(
        self,
        clip: str = "openai/clip-vit-base-patch32",
        dino: str = "facebook/dino-vits16",
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = f"{clip}, {dino}"
        self._clip_id, self._dino_id = clip, dino
        self._device = torch.device(device)

    def image(self, images: Tensor) -> Tensor:
        side = self._clip.config.vision_config.image_size
        return _in_batches(lambda part: self._seen(self._input(part, side, _CLIP_NORM)), images)

    def identity(self, images: Tensor) -> Tensor:
        side = self._dino.config.image_size
        return _in_batches(lambda part: self._class_token(self._input(part, side, _IMAGENET_NORM)), images)

    def text(self, prompts: list[str]) -> Tensor:
        def read(part: list[str]) -> Tensor:
            return _projected(self._clip.get_text_features(**_tokens(self._tokenizer, part, self._device)))

        return _in_batches(read, prompts)

    def _seen(self, pixels: Tensor) -> Tensor:
        return _projected(self._clip.get_image_features(pixel_values=pixels))

    def _class_token(self, pixels: Tensor) -> Tensor:
        hidden: Tensor = self._dino(pixel_values=pixels).last_hidden_state  # (batch, 1 + patches, width)
        return hidden[:, 0]

    def _input(self, images: Tensor, side: int, norm: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
        mean, std = (torch.tensor(values, device=self._device).view(3, 1, 1) for values in norm)
        return (_square(images.to(self._device), side) - mean) / std

    @cached_property
    def _clip(self) -> Any:
        return self._load(CLIPModel.from_pretrained, self._clip_id)

    @cached_property
    def _dino(self) -> Any:
        return self._load(AutoModel.from_pretrained, self._dino_id)

    @cached_property
    def _tokenizer(self) -> Any:
        return _from_hub(CLIPTokenizer.from_pretrained, self._clip_id)

    def _load(self, loader: Callable[..., Any], name: str) -> Any:
        model = _from_hub(loader, name, use_safetensors=True, dtype=torch.float32)
        return model.to(self._device).eval().requires_grad_(False)


def encoders_for(folder: Path | None, device: torch.device | str = "cpu") -> Encoders:
    """The encoders that suit a base in `folder`: its own if it is one of the world, else those for photographs."""
    if folder is not None and _is_world(folder):
        return WorldEncoders(folder, device)
    return HubEncoders(device=device)


def load(encoders: Encoders) -> None:
    """Fetch and load what the encoders need now, before anything that takes long.

    Raises:
        MnemonError: a model cannot be loaded.
    """
    encoders.text(["a photo"])
    encoders.identity(torch.zeros(1, 3, 32, 32))


def reference_features(encoders: Encoders, images: Tensor) -> dict[str, Tensor]:
    """What `evaluate` wants to know of a concept's reference images, to be kept in the library."""
    return {"image": encoders.image(images), "identity": encoders.identity(images)}


def _is_world(folder: Path) -> bool:
    return (folder / "encoders" / "judge.safetensors").is_file()


def _from_hub(loader: Callable[..., Any], name: str, **options: Any) -> Any:
    try:
        return loader(name, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if "model.safetensors" in reason:  # the file that transformers looked for in vain
            raise MnemonError(
                f"The encoder '{name}', needed for scores, has no safetensors weights, and pickles are not read: they "
                "can run code when opened. Choose another, or, if you trust this one, download it and convert it once: "
                "AutoModel.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)."
            ) from error
        raise MnemonError(
            f"The encoder '{name}', needed for scores, cannot be loaded ({reason}): "
            "download it once with a connection, or give a folder."
        ) from error


def _projected(output: Any) -> Tensor:
    """transformers 5 wraps what used to be the plain tensor."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _tokens(tokenizer: Any, prompts: list[str], device: torch.device) -> Any:
    return tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").to(device)


def _square(images: Tensor, side: int) -> Tensor:
    """(n, 3, h, w) 0..1 to the middle square, (n, 3, side, side) 0..1."""
    height, width = images.shape[-2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    middle = images[..., top : top + edge, left : left + edge].float()
    if edge == side:
        return middle
    return interpolate(middle, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


@torch.no_grad()
def _in_batches(encode: Callable[[Any], Tensor], items: Any) -> Tensor:
    parts = [encode(items[start : start + _BATCH]) for start in range(0, len(items), _BATCH)]
    return normalize(torch.cat(parts).float(), dim=-1).cpu()
