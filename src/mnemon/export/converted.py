"""Layers whose names only diffusers' converters know, such as those of xlabs' FLUX LoRAs.

A converter may drop what it does not understand without an error, so each layer is converted by itself and its change
measured before and after.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.export.factors import SAME
from mnemon.export.foreign_deltas import Change, Factors, change_of, deltas_of
from mnemon.export.formats import ALPHA, DOWN, UP, split
from mnemon.export.layer_names import LayerNames, Place
from mnemon.models import Base


def converted(base: Base, names: LayerNames, tensors: Mapping[str, Tensor]) -> dict[str, Delta] | None:
    """Target module -> change, of the tensors of one layer of a file; None if diffusers does not know it, or if what
    comes out is not all of what went in."""
    kinds = {split(key).kind: tensor for key, tensor in tensors.items()}
    pipeline: Any = getattr(base, "pipeline_class", None)
    if not {DOWN, UP} <= kinds.keys() <= {DOWN, UP, ALPHA} or not hasattr(pipeline, "lora_state_dict"):
        return None
    logger = logging.getLogger("diffusers")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)  # what is not converted is said by our own account
        whole = change_of({kind: tensor for kind, tensor in kinds.items() if kind}, lambda _: 1.0)
        (before,) = deltas_of(whole, [((0, whole.shape[0]),)])
        state, alphas = pipeline.lora_state_dict(dict(tensors), return_alphas=True)
        deltas = _deltas(names, {**state, **(alphas or {})})
    except Exception:  # whatever a converter of others raises on names that it does not know
        return None
    finally:
        logger.setLevel(level)
    size, kept = _size(before), sum(_size(delta) ** 2 for delta in deltas.values()) ** 0.5
    return deltas if deltas and abs(kept - size) <= SAME * size else None


def _deltas(names: LayerNames, tensors: Mapping[str, Any]) -> dict[str, Delta]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        one = split(key)
        assert one.kind in (DOWN, UP, ALPHA) and one.kind is not None
        layers.setdefault(one.layer, {})[one.kind] = tensor
    deltas: dict[str, Delta] = {}
    for name, of_layer in layers.items():
        place = names.find(name)
        assert isinstance(place, Place) and len(place.parts) == 1 and place.parts[0].target not in deltas
        change = change_of(of_layer, lambda _: 1.0)
        assert change.shape == place.shape
        rows = ((0, place.shape[0]),)
        deltas[place.parts[0].target] = deltas_of(_own(change), [rows])[0]
    return deltas


def _own(change: Change) -> Change:
    """In memory of its own: a converter may give several layers views of one tensor."""
    assert isinstance(change, Factors)
    return Factors(change.up.clone(), change.down.clone(), change.scale)


def _size(delta: Delta) -> float:
    """The Frobenius norm of the change."""
    return float(delta.matrix().norm())
