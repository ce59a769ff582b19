"""Small random vision transformers, synthetic classes, and a method of each kind that trains in moments."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mnemon.classification import Backbone, ClassifierMethod, Example, Task, TrainedTask, classifier_from, train_task
from mnemon.classification.methods import CLASSIFIERS

SIDE, WIDTH, BLOCKS = 16, 32, 2
SHAPE = {
    "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "stamina": {"rank": 2, "mask_rank": 2},
    "c-lora": {"rank": 2},
    "lora": {"rank": 2},
    "joint": {"rank": 2},
    "coda-p": {"components": 2, "length": 4, "blocks": 2},
    "dualprompt": {"shared_length": 2, "own_length": 3, "shared_blocks": 1, "own_blocks": 1},
    "l2p": {"pool_size": 4, "length": 2, "top_k": 2},
    "inflora": {"rank": 2},
    "sd-lora": {"rank": 2},
    "ewc": {"learning_rate": 1e-3},
    "lwf": {"learning_rate": 1e-3},
    "finetune": {"learning_rate": 1e-3},
    "finetune++": {"learning_rate": 1e-3},
    "l2p++": {"pool_size": 4, "length": 4, "top_k": 2},
}
SETTINGS = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2}


def small_model(family: str = "vit", seed: int = 0) -> Any:
    """A bare model with random weights."""
    import transformers

    no_pooler = {"add_pooling_layer": False}
    configs = {
        "vit": (transformers.ViTConfig(intermediate_size=64, **SHAPE), transformers.ViTModel, no_pooler),
        "deit": (transformers.DeiTConfig(intermediate_size=64, **SHAPE), transformers.DeiTModel, no_pooler),
        "dinov2": (transformers.Dinov2Config(mlp_ratio=2, **SHAPE), transformers.Dinov2Model, {}),
        "clip_vision_model": (
            transformers.CLIPVisionConfig(intermediate_size=64, **SHAPE), transformers.CLIPVisionModel, {}
        ),
    }  # fmt: skip
    config, kind, options = configs[family]
    torch.manual_seed(seed)
    model = kind(config, **options)
    for parameter in model.parameters():  # larger than transformers starts them: features of images differ
        parameter.data.normal_(0, 0.2)
    return model


@cache
def backbone(family: str = "vit") -> Backbone:
    return Backbone(small_model(family), family)


@cache
def backbone_folder(folder: Path, family: str = "vit") -> Path:
    """The same backbone as a transformers folder."""
    small_model(family).save_pretrained(folder / family)
    return folder / family


def small(name: str, **more: Any) -> ClassifierMethod:
    """The method with settings for the small backbone."""
    settings = SETTINGS if CLASSIFIERS[name].trains_head else {}
    return classifier_from(name, {**settings, **SMALL.get(name, {}), **more})


def picture(label: int, number: int) -> Image.Image:
    """One of the images of a class: a colour of its own, and noise."""
    generator = torch.Generator().manual_seed(1000 * label + number)
    colour = torch.rand(3, generator=torch.Generator().manual_seed(label))
    pixels = colour + 0.1 * torch.randn(20, 24, 3, generator=generator)
    return Image.fromarray((pixels.clamp(0, 1) * 255).byte().numpy())


def example(label: int, number: int) -> Example:
    image = picture(label, number)
    return Example(image, f"class-{label}", f"{label}/{number}.png", hashlib.sha256(image.tobytes()).hexdigest())


def task(number: int, classes: int = 2, images: int = 4, first_image: int = 0) -> Task:
    """The task of this number, from 0, with classes of its own."""
    labels = range(number * classes, (number + 1) * classes)
    examples = [example(label, first_image + image) for label in labels for image in range(images)]
    return Task(f"task-{number + 1}", tuple(f"class-{label}" for label in labels), tuple(examples))


def learned(method: ClassifierMethod, tasks: Sequence[Task], on: Backbone | None = None) -> list[TrainedTask]:
    """The tasks learned one after another; all at once, if the method does that."""
    on = on or backbone()
    if method.trains_jointly:
        classes = tuple(label for one in tasks for label in one.classes)
        tasks = [Task("all", classes, tuple(example for one in tasks for example in one.examples))]
    done: list[TrainedTask] = []
    for one in tasks:
        done.append(train_task(on, method, one, done))
    return done
