"""The methods of continual personalization. To add one: one file, and one line here."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mnemon.errors import MnemonError
from mnemon.methods.base import Learner, Losses, Method, Start, Step, TrainedConcept
from mnemon.methods.c_lora import CLora
from mnemon.methods.cidm import Cidm
from mnemon.methods.cns import Cns
from mnemon.methods.custom_diffusion import CustomDiffusion
from mnemon.methods.custom_diffusion_merge import CustomDiffusionMerge
from mnemon.methods.ewc import Ewc
from mnemon.methods.fl2t import Fl2t
from mnemon.methods.joint import Joint
from mnemon.methods.lora import Lora
from mnemon.methods.lora_compose import LoraCompose
from mnemon.methods.lora_merge import LoraMerge
from mnemon.methods.lwf import Lwf
from mnemon.methods.mix_of_show import MixOfShow
from mnemon.methods.null_space import NullSpace
from mnemon.methods.orthogonal_adaptation import OrthogonalAdaptation
from mnemon.methods.replay import Replay
from mnemon.methods.single import Single
from mnemon.methods.stamina import Stamina
from mnemon.methods.textual_inversion import TextualInversion
from mnemon.settings import RENAMED, current_names, nearest, settings_from_json

METHODS: dict[str, type[Method]] = {
    "lora": Lora,
    "stamina": Stamina,
    "c-lora": CLora,
    "textual-inversion": TextualInversion,
    "custom-diffusion": CustomDiffusion,
    "cns": Cns,
    "custom-diffusion-merge": CustomDiffusionMerge,
    "lora-merge": LoraMerge,
    "lora-compose": LoraCompose,
    "ewc": Ewc,
    "lwf": Lwf,
    "replay": Replay,
    "single": Single,
    "joint": Joint,
    "mix-of-show": MixOfShow,
    "orthogonal-adaptation": OrthogonalAdaptation,
    "cidm": Cidm,
    "fl2t": Fl2t,
    "null-space": NullSpace,
}

FORMER_DEFAULTS: dict[str, dict[str, Any]] = {
    "stamina": {"sparsity": "penalty", "forget_scale": "sum", "mask_unit": "entry"},
    "c-lora": {"forget_scale": "sum"},
    "cns": {
        "score": "wanda",
        "token_share": 0.0,
        "num_vectors": 1,
        "token_lr": 1e-3,
        "reg": "earlier+base",
        "forget_scale": "sum",
        "forget_weight": 1e-3,
    },
}
"""By method and setting: what a library, or the record of a run, did that does not mention the setting, where that is
not its default now."""


def method_from(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method `name` with `settings`; those not given keep their defaults.

    Raises:
        MnemonError: the name or a setting is unknown, or a value does not fit.
    """
    if name not in METHODS:
        raise MnemonError(f"There is no method '{name}'{nearest(name, list(METHODS))}.")
    return settings_from_json(METHODS[name], settings or {}, f"The method '{name}'")


def method_of_record(name: str, settings: Mapping[str, Any]) -> Method:
    """The method as a library or the record of a run describes it, which may be older than some of the settings.
    Raises as `method_from` does."""
    mentioned = {*settings, *(RENAMED.get(key, key) for key in settings)}
    former = {key: value for key, value in FORMER_DEFAULTS.get(name, {}).items() if key not in mentioned}
    return method_from(name, {**settings, **former})


def method_with(method: Method, settings: Mapping[str, Any]) -> Method:
    """The same method with other values of some settings. Raises as `method_from` does."""
    own = method_settings(method)
    return method_from(method.name, own | current_names(settings, list(own), f"The method '{method.name}'"))


def method_settings(method: Method) -> dict[str, Any]:
    """The method's settings as JSON values; `method_from(method.name, ...)` makes the same method again."""
    return asdict(method)


__all__ = [
    "METHODS",
    "Learner",
    "Losses",
    "Method",
    "Start",
    "Step",
    "TrainedConcept",
    "method_from",
    "method_of_record",
    "method_settings",
    "method_with",
]
