"""The methods of continual classification. To add one: one file, and one line here."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mnemon.classification.methods.base import Batch, ClassifierMethod, Learner, Start, TrainedTask
from mnemon.classification.methods.c_lora import CLora
from mnemon.classification.methods.coda_p import CodaP
from mnemon.classification.methods.dualprompt import DualPrompt
from mnemon.classification.methods.ewc import Ewc
from mnemon.classification.methods.finetune import Finetune, FinetuneMasked
from mnemon.classification.methods.inflora import InfLora
from mnemon.classification.methods.joint import Joint
from mnemon.classification.methods.l2p import L2p, L2pPlus
from mnemon.classification.methods.lora import Lora
from mnemon.classification.methods.lwf import Lwf
from mnemon.classification.methods.nearest_mean import NearestMean
from mnemon.classification.methods.sd_lora import SdLora
from mnemon.classification.methods.stamina import Stamina
from mnemon.errors import MnemonError
from mnemon.settings import nearest, settings_from_json

CLASSIFIERS: dict[str, type[ClassifierMethod]] = {
    "stamina": Stamina,
    "c-lora": CLora,
    "lora": Lora,
    "coda-p": CodaP,
    "dualprompt": DualPrompt,
    "l2p": L2p,
    "l2p++": L2pPlus,
    "joint": Joint,
    "inflora": InfLora,
    "sd-lora": SdLora,
    "ewc": Ewc,
    "lwf": Lwf,
    "finetune": Finetune,
    "finetune++": FinetuneMasked,
    "nearest-mean": NearestMean,
}


def classifier_from(name: str, settings: Mapping[str, Any] | None = None) -> ClassifierMethod:
    """The method `name` with `settings`; those not given keep their defaults.

    Raises:
        MnemonError: the name or a setting is unknown, or a value does not fit.
    """
    if name not in CLASSIFIERS:
        raise MnemonError(f"There is no method '{name}' for classes{nearest(name, list(CLASSIFIERS))}.")
    return settings_from_json(CLASSIFIERS[name], settings or {}, f"The method '{name}'")


def classifier_settings(method: ClassifierMethod) -> dict[str, Any]:
    """The method's settings as JSON values."""
    return asdict(method)


__all__ = [
    "CLASSIFIERS",
    "Batch",
    "ClassifierMethod",
    "Learner",
    "Start",
    "TrainedTask",
    "classifier_from",
    "classifier_settings",
]
