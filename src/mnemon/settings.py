"""Settings as frozen dataclasses: checked when made, written to JSON, read back strictly."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mnemon.errors import MnemonError

T = TypeVar("T")


def check_settings(settings: Any, positive: Sequence[str] = (), not_negative: Sequence[str] = ()) -> None:
    """Hold every field against its annotation, and the named ones against zero. None passes where it is allowed.

    Raises:
        MnemonError: naming the setting, what was given and what is expected.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if not _fits(value, hint):
            raise MnemonError(f"The setting '{field.name}' is {value!r}; expected {_described(hint)}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise MnemonError(f"The setting '{field.name}' is {value}; expected a finite number.")
    for name in positive:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise MnemonError(f"The setting '{name}' is {value}; expected more than 0.")
    for name in not_negative:
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise MnemonError(f"The setting '{name}' is {value}; expected 0 or more.")


def settings_to_json(settings: Any) -> dict[str, Any]:
    """Every field by name."""
    return asdict(settings)


def settings_from_json(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """The settings `cls` with `values`; fields that are not given keep their defaults. `what` names them in errors.

    Raises:
        MnemonError: a key is unknown (the nearest known one is named), or a value does not fit.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise MnemonError(f"{what} has no setting '{key}'{nearest(key, known)}.")
    return cls(**values)


def nearest(name: str, known: Sequence[str]) -> str:
    """How an error about an unknown name goes on: "; did you mean 'rank'?", or the list of known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _fits(value: object, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(_described(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "nothing"}
    return words.get(hint, str(hint))
