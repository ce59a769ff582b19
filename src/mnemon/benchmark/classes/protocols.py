"""Which settings the methods have that are compared: frozen, by protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mnemon.classification.backbone import BUILT_IN
from mnemon.classification.methods import ClassifierMethod, classifier_from, classifier_settings
from mnemon.errors import MnemonError

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class ClassProtocol:
    """Attributes:
    backbone: a transformers folder or hub id, or the built-in one.
    common: what is set in every method that has the setting.
    own: by method, before the common ones.
    trials: settings of each method that were tried on development classes; None where nothing was chosen here.
    """

    backbone: str
    common: Settings
    own: Mapping[str, Settings] = field(default_factory=dict)
    trials: int | None = None


SMALL = ClassProtocol(
    backbone=BUILT_IN,
    common={"epochs": 4, "batch_size": 16, "rank": 16, "mask_rank": 8, "augment": "none", "fisher_images": 40},
    own={
        "stamina": {"learning_rate": 1e-2},
        "c-lora": {"learning_rate": 1e-2},
        "lora": {"learning_rate": 1e-2},
        "joint": {"learning_rate": 3e-3},
        "coda-p": {"learning_rate": 1e-2, "components": 6},
        "dualprompt": {"learning_rate": 1e-2, "shared_length": 4, "own_length": 6},
        "l2p": {"learning_rate": 1e-2, "length": 2},
        "l2p++": {"learning_rate": 1e-2, "length": 4},
        "inflora": {"learning_rate": 5e-3, "rank": 10},
        "sd-lora": {"learning_rate": 8e-3, "rank": 10},
        "ewc": {"learning_rate": 5e-4},
        "lwf": {"learning_rate": 5e-4},
        "finetune": {"learning_rate": 5e-4},
        "finetune++": {"learning_rate": 5e-4},
    },
    trials=3,
)
"""For the built-in backbone: short, so that all methods in three orders take half an hour on a free core, with short
prompts, as images have 26 tokens only. Learning rates: the best of the default times 1, 3 and 10 on `classes-4-dev`
(`scripts/class_trials.py`)."""
CODAP = ClassProtocol(
    backbone="google/vit-base-patch16-224",
    common={"epochs": 50, "batch_size": 128, "normalization": "none"},
    own={"dualprompt": {"shared_length": 3, "own_length": 10}},
)
"""Block A of the published tables, as the code of CODA-Prompt: a backbone of ImageNet-21k and then ImageNet-1k, images
in 0..1. Not run here; the checkpoint of that name is not the one of timm that the papers used."""
IN21K = ClassProtocol(
    backbone="google/vit-base-patch16-224-in21k",
    common={"epochs": 50, "batch_size": 128},
    own={"inflora": {"rank": 10, "learning_rate": 5e-4}, "c-lora": {"rank": 64, "forget_weight": 0.5}},
)
"""Block B, as InfLoRA's re-run: a backbone of ImageNet-21k alone. Not run here."""
PROTOCOLS = {"small": SMALL, "codap": CODAP, "in21k": IN21K}


def protocol_named(name: str) -> ClassProtocol:
    """Raises:
    MnemonError: there is none of this name.
    """
    if name not in PROTOCOLS:
        raise MnemonError(f"There is no protocol '{name}' for classes: choose from {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def classifier_by(protocol: str, name: str, settings: Settings | None = None) -> ClassifierMethod:
    """The method `name` with the settings of the protocol, and `settings` before those.

    Raises:
        MnemonError: there is no such protocol, method or setting.
    """
    chosen = protocol_named(protocol)
    has = classifier_settings(classifier_from(name))
    common = {key: value for key, value in chosen.common.items() if key in has}
    return classifier_from(name, {**common, **chosen.own.get(name, {}), **(settings or {})})
