"""What changed between two revisions of a library."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mnemon.adapters import Delta
from mnemon.api.opening import base_of
from mnemon.library import Library, composed_changes, fused_changes
from mnemon.models import Base
from mnemon.models.layers import every_layer

SCORES = ("identity_alignment", "image_alignment", "text_alignment")


@dataclass(frozen=True)
class Difference:
    """What lies between the revisions `before` and `after` of one library.

    Attributes:
        added, removed: names of concepts. One that was removed and learned again in between is in both.
        scores: concept of either revision -> score -> (before, after); None where it was not measured.
        layers: layer -> ||W_after - W_before||_F / ||W_before||_F of its weights with all concepts composed, largest
            first; None for methods that compose anew for every prompt, so that there is no such W.
    """

    before: int
    after: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    scores: Mapping[str, Mapping[str, tuple[float | None, float | None]]]
    layers: Mapping[str, float] | None


def diff(library: str | Path, before: int, after: int, *, base: str | Base | None = None) -> Difference:
    """What changed from one revision of a library to another; either may be the later one.

    Raises:
        MnemonError: the library has no such revision, or its base cannot be opened.
    """
    old, new = Library.open(library, at=before), Library.open(library, at=after)
    gone, come = ({(name, entry.number) for name, entry in one.concepts().items()} for one in (old, new))
    layers = None if new.method.per_prompt else _distances(old, new, base_of(new, base))
    return Difference(
        before,
        after,
        tuple(name for name, entry in new.concepts().items() if (name, entry.number) not in gone),
        tuple(name for name, entry in old.concepts().items() if (name, entry.number) not in come),
        _scores(old, new),
        layers,
    )


def _scores(old: Library, new: Library) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    names = dict.fromkeys([*old.names(), *new.names()])
    then, now = (one.rows().get(one.revision, {"concepts": {}})["concepts"] for one in (old, new))
    return {
        name: {score: (then.get(name, {}).get(score), now.get(name, {}).get(score)) for score in SCORES}
        for name in names
    }


@torch.no_grad()
def _distances(old: Library, new: Library, base: Base) -> dict[str, float]:
    first, second = _changes(old, base), _changes(new, base)
    layers = every_layer(base)
    distances = {}
    for name in {**first, **second}:
        # Convolutions too, as the matrices that their changes are.
        start = layers[name].weight.float().flatten(1).cpu() + _matrix(first.get(name))
        step = _matrix(second.get(name)) - _matrix(first.get(name))
        distances[name] = float(torch.linalg.norm(step) / torch.linalg.norm(start))
    return dict(sorted(distances.items(), key=lambda pair: -pair[1]))


def _changes(library: Library, base: Base) -> dict[str, Delta]:
    if library.method.fuses:
        return fused_changes(library, base)
    return composed_changes(library.method, library.learned(), base)


def _matrix(delta: Delta | None) -> Tensor:
    return torch.zeros(()) if delta is None else delta.matrix().float().cpu()
