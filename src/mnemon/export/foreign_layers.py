"""Layer by layer, the changes that a LoRA file makes to a base."""

import math
import re
from collections.abc import Mapping
from typing import Any

from mnemon.adapters import Delta
from mnemon.export.account import NOT_HERE, WHOLE_MODEL, Account, Misfit
from mnemon.export.converted import converted
from mnemon.export.foreign_deltas import Misshapen, Unfit, change_of, deltas_of
from mnemon.export.formats import BIAS, LONE_MARK, SCALED, UP, Key, heads, split
from mnemon.export.layer_names import LayerNames, Place
from mnemon.export.naming import Naming, naming_of, split_target
from mnemon.models import Base

BIASES = "changes of biases, which cannot be changed here"
OWN_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of PEFT after which the factors are a change of another weight than the base's."""
Layer = dict[str, Key]
"""The keys of a file that name one layer."""


def read_deltas(account: Account, base: Base) -> dict[str, Delta]:
    """Target module -> change, of all keys that are open in the account; none is open afterwards."""
    if _is_whole_model(account.open):
        account.leave(account.open, WHOLE_MODEL)
        return {}
    names, naming = LayerNames(base), naming_of(base)
    layers = _by_layer(account, names)
    places = {name: names.find(name) for name in layers}
    _leave_twice(account, layers, places)
    deltas: dict[str, Delta] = {}
    for name, layer in layers.items():
        place = places[name]
        if isinstance(place, Place):
            deltas |= _known(account, naming, name, _open(account, layer), place)
    for name, layer in layers.items():
        place = places[name]
        if not isinstance(place, Place):
            deltas |= _unknown(account, base, names, _open(account, layer), place, deltas)
    return deltas


def _is_whole_model(keys: list[str]) -> bool:
    """Whether the keys are those of a model's weights, none of them of an adapter."""
    kinds = [one for one in map(split, keys) if one.refused not in (SCALED, LONE_MARK)]  # checkpoints have those too
    return any(key.endswith((".weight", ".bias")) for key in keys) and not any(one.kind for one in kinds)


def _open(account: Account, layer: Layer) -> Layer:
    return {key: one for key, one in layer.items() if key not in account.left}


def _by_layer(account: Account, names: LayerNames) -> dict[str, Layer]:
    """The open keys by the name of their layer; a key of an unknown kind belongs to the layer that it begins with."""
    layers: dict[str, Layer] = {}
    for key in account.open:
        one = split(key)
        if one.kind is None:
            known = (head for head, _ in heads(key) if names.find(head))
            one = Key(next(known, one.layer), None)
        layers.setdefault(one.layer, {})[key] = one
    return layers


def _leave_twice(account: Account, layers: Mapping[str, Layer], places: Mapping[str, Place | str | None]) -> None:
    """Of a layer under two names, or with two tensors of one kind, it is not known which one counts."""
    named: dict[str, list[str]] = {}
    for name, place in places.items():
        for part in place.parts if isinstance(place, Place) else ():
            named.setdefault(part.target, []).append(name)
    several = {name: same for same in named.values() if len(same) > 1 for name in same}
    for name, same in several.items():
        others = " and ".join(f"'{one}'" for one in same)
        account.leave(layers[name], f"one layer under {len(same)} names, {others}")
    for name, layer in layers.items():
        kinds = [one.kind for one in layer.values() if one.kind]
        if name not in several and len(set(kinds)) < len(kinds):
            account.leave(layer, "two tensors of one kind for one layer")


def _known(account: Account, naming: Naming, name: str, layer: Layer, place: Place) -> dict[str, Delta]:
    """The changes of a layer that the base has."""
    account.leave([key for key, one in layer.items() if one.kind == BIAS], BIASES)  # the weight's change is whole
    layer = _open(account, layer)
    if not layer:
        return {}
    part, path = split_target(naming, place.parts[0].target)
    config = _config(account.file.adapter, part)
    try:
        _check_kinds(layer)
        _check_config(config)
        tensors = {one.kind: account.file.tensors[key] for key, one in layer.items() if one.kind}
        change = change_of(tensors, lambda rank: _config_scale(config, (path, name), rank))
    except Unfit as reason:
        lora = isinstance(reason, Misshapen) and any(one.kind == UP for one in layer.values())
        account.leave(layer, f"{reason}, where {_expected(place)}" if lora else str(reason))
        return {}
    if change.shape != place.shape:
        account.misfits[name] = Misfit(change.shape, place.shape)
        account.leave(layer, "changes of another size")
        return {}
    targets = [one.target for one in place.parts]
    account.carry(layer, " and ".join(targets))
    return dict(zip(targets, deltas_of(change, [one.rows for one in place.parts]), strict=True))


def _expected(place: Place) -> str:
    rows, columns = place.shape
    return f"up ({rows}, rank) and down (rank, {columns}) are expected"


def _unknown(
    account: Account, base: Base, names: LayerNames, layer: Layer, place: str | None, deltas: Mapping[str, Delta]
) -> dict[str, Delta]:
    """The changes of a layer whose name is in no table of ours, or that is no linear layer or convolution."""
    found = None if place else converted(base, names, {key: account.file.tensors[key] for key in layer})
    if found and found.keys() & deltas.keys():
        account.leave(layer, f"one layer under two names, '{next(iter(found.keys() & deltas.keys()))}' in the base")
        return {}
    if found:
        account.carry(layer, " and ".join(found))
        return found
    for key, one in layer.items():
        account.leave(
            [key], one.refused or (f"changes of a {place}, which cannot be changed here" if place else NOT_HERE)
        )
    return {}


def _check_kinds(layer: Layer) -> None:
    """Beside a tensor that cannot be imported, the layer's others are nothing."""
    for key, one in layer.items():
        if one.refused:
            raise Unfit(one.refused)
        if one.kind is None and key.endswith((".weight", ".bias")):
            raise Unfit("weights that are to replace the base's")
        if one.kind is None:
            ending = key.rpartition(".")[2]
            raise Unfit(f"a kind of tensor that is not known, '{ending}', of layers that the base has")


def _config(adapter: Mapping[str, Any], part: str) -> dict[str, Any]:
    """PEFT's config of a part of the pipeline."""
    return {key.removeprefix(f"{part}."): value for key, value in adapter.items()}


def _check_config(config: Mapping[str, Any]) -> None:
    if config.get("use_dora"):
        raise Unfit("a DoRA, which rescales the whole weight")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(OWN_BASE):
        raise Unfit(f"a LoRA of the initialisation '{start}', which changes the base's weights as well")


def _config_scale(config: Mapping[str, Any], paths: tuple[str, str], rank: int | None) -> float:
    try:
        return _peft_scale(config, paths, rank)
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error) as error:
        raise Unfit(f"factors whose scale in the adapter config cannot be read ({error})") from None


def _peft_scale(config: Mapping[str, Any], paths: tuple[str, str], rank: int | None) -> float:
    """The scale of a layer by PEFT's config, alpha / rank; 1 without a config.

    Args:
        paths: the layer's path in the base and its name in the file: a pattern may be written for either.
        rank: of the layer's factors; without any the config's own counts.
    """
    if not config:
        return 1.0
    size = rank or _of_pattern(config, "rank_pattern", paths) or config.get("r") or 1
    own = _of_pattern(config, "alpha_pattern", paths)
    alpha = config.get("lora_alpha", config.get("alpha", size)) if own is None else own
    return float(alpha) / (math.sqrt(size) if config.get("use_rslora") else size)


def _of_pattern(config: Mapping[str, Any], which: str, paths: tuple[str, str]) -> Any:
    """A layer's own value: that of its very path, or that of the first expression that matches its end."""
    patterns = config.get(which) or {}
    exact = (patterns[path] for path in paths if path in patterns)
    matching = (value for key, value in patterns.items() for path in paths if re.fullmatch(rf"(.*\.)?({key})", path))
    return next((value for values in (exact, matching) for value in values), None)
