"""The methods of continual personalization. To add one: one file, and one line here."""

from collections.abc import Mapping
from typing import Any

from mnemon.errors import MnemonError
from mnemon.methods.base import Learned, Learner, Losses, Method, Step
from mnemon.methods.c_lora import CLora
from mnemon.methods.custom_diffusion import CustomDiffusion
from mnemon.methods.lora import Lora
from mnemon.methods.mix_of_show import MixOfShow
from mnemon.methods.orthogonal_adaptation import OrthogonalAdaptation
from mnemon.methods.settings import nearest, settings_from_json, settings_to_json
from mnemon.methods.stamina import Stamina
from mnemon.methods.textual_inversion import TextualInversion

METHODS: dict[str, type[Method]] = {
    "lora": Lora,
    "stamina": Stamina,
    "c-lora": CLora,
    "textual-inversion": TextualInversion,
    "custom-diffusion": CustomDiffusion,
    "mix-of-show": MixOfShow,
    "orthogonal-adaptation": OrthogonalAdaptation,
}


def method_from(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method `name` with `settings`; those not given keep their defaults.

    Raises:
        MnemonError: the name or a setting is unknown, or a value does not fit.
    """
    if name not in METHODS:
        raise MnemonError(f"There is no method '{name}'{nearest(name, list(METHODS))}.")
    return settings_from_json(METHODS[name], settings or {}, f"The method '{name}'")


def method_settings(method: Method) -> dict[str, Any]:
    """The method's settings as JSON values; `method_from(method.name, ...)` makes the same method again."""
    return settings_to_json(method)


__all__ = ["METHODS", "Learned", "Learner", "Losses", "Method", "Step", "method_from", "method_settings"]
