"""Settings as frozen dataclasses: checked when made, written to JSON, read back strictly."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mnemon.errors import MnemonError

T = TypeVar("T")

POSITIVE, NON_NEGATIVE, SHARE = "more than 0", "0 or more", "a share, more than 0 and at most 1"
FRACTION = "0 or more, and less than 1"
PositiveInt = Annotated[int, POSITIVE]
PositiveFloat = Annotated[float, POSITIVE]
NonNegativeInt = Annotated[int, NON_NEGATIVE]
NonNegativeFloat = Annotated[float, NON_NEGATIVE]
Share = Annotated[float, SHARE]
Fraction = Annotated[float, FRACTION]
_IN_RANGE = {
    POSITIVE: lambda x: x > 0,
    NON_NEGATIVE: lambda x: x >= 0,
    SHARE: lambda x: 0 < x <= 1,
    FRACTION: lambda x: 0 <= x < 1,
}

DEFAULT_METHOD = "stamina"
"""Of a new library that is not given another."""
RENAMED = {
    "rate": "learning_rate",
    "token_rate": "token_lr",
    "mask_rate": "mask_lr",
    "network_rate": "network_lr",
    "vectors": "num_vectors",
    "class_word": "use_class_noun",
    "rehearsal": "num_replay_images",
    "batch": "batch_size",
    "accumulate": "gradient_accumulation_steps",
    "checkpointing": "gradient_checkpointing",
    "min_snr": "snr_gamma",
    "warm_up": "lr_warmup_steps",
    "schedule": "lr_scheduler",
    "prior_weight": "prior_loss_weight",
    "snapshot_seconds": "checkpoint_seconds",
    "guidance": "guidance_scale",
    "negative": "negative_prompt",
}
"""Former names of settings, as libraries and records of runs hold them, and their names now. A former name means the
new one wherever there is no setting of the former name itself."""


def check_settings(settings: Any) -> None:
    """Check every field against its annotation, ranges included.

    Raises:
        MnemonError: naming the setting, what was given and what is expected.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    checks = [
        (field.name, getattr(settings, field.name), _alternatives(hints[field.name])) for field in fields(settings)
    ]
    for name, value, kinds in checks:
        if not any(_fits(value, kind) for kind in kinds):
            expected = " or ".join(map(_described, kinds))
            raise MnemonError(f"The setting '{name}' is {value!r}; expected {expected}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise MnemonError(f"The setting '{name}' is {value}; expected a finite number.")
    for name, value, kinds in checks:
        for expected in filter(None, kinds.values()):
            if value is not None and not _IN_RANGE[expected](value):
                raise MnemonError(f"The setting '{name}' is {value}; expected {expected}.")


def settings_from_json(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """The settings `cls` with `values`, whose keys may be former names (`RENAMED`); fields that are not given keep
    their defaults. `what` names them in errors.

    Raises:
        MnemonError: a key is unknown (the nearest known one is named), a setting is given under both of its names, or a
            value does not fit.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    return cls(**current_names(values, known, what))


def current_names(values: Mapping[str, Any], known: Sequence[str], what: str) -> dict[str, Any]:
    """`values` under the names of now, all of them among the `known` ones.

    Raises:
        MnemonError: as for `settings_from_json`, but for values that do not fit.
    """
    current: dict[str, Any] = {}
    for key, value in values.items():
        name = key if key in known else RENAMED.get(key, key)
        if name not in known:
            raise MnemonError(f"{what} has no setting '{key}'{nearest(key, known)}.")
        if name != key and name in values:
            raise MnemonError(f"{what} is given '{key}' and '{name}', which are one setting: keep '{name}'.")
        current[name] = value
    return current


def nearest(name: str, known: Sequence[str]) -> str:
    """How an error about an unknown name goes on: "; did you mean 'rank'?", or the list of known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _range(hint: Any) -> str | None:
    """What is expected of a value by its annotation, if that says."""
    if get_origin(hint) in (Union, UnionType):
        return next(filter(None, map(_range, get_args(hint))), None)
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def _alternatives(hint: Any) -> dict[Any, str | None]:
    """The types that an annotation allows, and the range of each, if there is one."""
    if get_origin(hint) in (Union, UnionType):
        return {kind: expected for part in get_args(hint) for kind, expected in _alternatives(part).items()}
    if get_origin(hint) is Annotated:
        kind, expected = get_args(hint)
        return {kind: expected}
    return {hint: None}


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "nothing"}
    return words.get(kind, str(kind))
