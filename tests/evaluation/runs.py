"""A small folder of runs, made up so that every figure can be worked out by hand.

Identity features are turned by an angle from the references, so that every cosine is chosen: a concept just learned by
a method of quality q has R[j, j] = q, and loses `drop` with every concept learned after it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mnemon.files import write_json
from mnemon.tensor_files import write_safetensors

NOUNS = ("mug", "mug", "cat", "boat", None)
PICTURES, REFERENCES, GENERAL = 4, 3, 5
COLOURS = ("firebrick", "seagreen", "royalblue", "goldenrod", "slategray", "orchid")


def concept_names(count: int) -> list[str]:
    return [f"c{index:02d}" for index in range(1, count + 1)]


def at_angle(axis: int, cosine: float, count: int, width: int) -> Tensor:
    """`count` unit vectors whose cosine with axis `axis` is `cosine`; each has another axis for the rest."""
    features = torch.zeros(count, width)
    features[:, axis] = cosine
    for row in range(count):
        features[row, -1 - row] = math.sqrt(1 - cosine**2)
    return features


def identity(quality: float, drop: float, t: int, j: int) -> float:
    return quality - drop * (t - j)


def write_run(
    out: Path,
    method: str,
    order: int = 0,
    seed: int = 0,
    *,
    quality: float = 0.9,
    drop: float = 0.02,
    count: int = 4,
    points: Sequence[int] = (1, 2, 3, 4),
    strips: bool = True,
    alone: float | None = 1.0,
) -> Path:
    """A finished run of `count` concepts, in another succession in each order; `alone` is what each reaches alone."""
    folder = out / method / f"order-{order}-seed-{seed}"
    names = concept_names(count)
    names = names[order % count :] + names[: order % count]
    write_json(folder / "job.json", job(method, order, seed, names, points))
    rows, features = {"0": {"concepts": {}, "general": {"text_alignment": 0.31}}}, _references(names)
    for t in range(1, count + 1):
        scored = names[:t] if t in points else names[t - 1 : t]
        rows[str(t)] = _row(scored, names, quality, drop, t)
        for name in scored:
            cosine = identity(quality, drop, t, names.index(name) + 1)
            place = names.index(name)
            features[f"pictures/{t}/{name}/identity"] = at_angle(place, cosine, PICTURES, count + PICTURES)
            features[f"pictures/{t}/{name}/image"] = at_angle(place, cosine, PICTURES, count + PICTURES)
            if strips:
                _strip(folder / "strips" / f"{t}-{name}.png", int(name[1:]), cosine)
        if t in points:
            features[f"general/{t}/image"] = at_angle(0, 1 - 0.1 * t / count, GENERAL, count + GENERAL)
    features["general/0/image"] = at_angle(0, 1.0, GENERAL, count + GENERAL)
    write_json(folder / "rows.json", rows)
    write_safetensors(folder / "features.safetensors", features)
    write_json(folder / "costs.json", costs(names, seed))
    if alone is not None:
        write_json(folder / "alone.json", {name: {"identity_alignment": alone} for name in names})
    return folder


def write_failure(out: Path, method: str, order: int = 0, seed: int = 0, error: str = "Out of <memory>.") -> Path:
    folder = out / method / f"order-{order}-seed-{seed}"
    write_json(folder / "job.json", job(method, order, seed, concept_names(4), (1, 2, 3, 4)))
    write_json(folder / "failed.json", {"error": error, "where": "learning c03"})
    return folder


def job(method: str, order: int, seed: int, names: Sequence[str], points: Sequence[int]) -> dict:
    kinds = {name: ("thing" if NOUNS[int(name[1:]) % 5] else "style") for name in names}
    return {
        "sequence": "toy", "base": "world", "method": method, "settings": {"rank": 4}, "order": order, "seed": seed,
        "concepts": [{"name": name, "noun": NOUNS[int(name[1:]) % 5], "kind": kinds[name]} for name in names],
        "score": {"pictures": PICTURES, "steps": 20, "guidance": 4.0, "points": list(points)},
        "versions": {"mnemon": "0.1.0", "torch": "2.13.0"},
        "machine": {"processor": "a processor", "cores": 2},
    }  # fmt: skip


def costs(names: Sequence[str], seed: int) -> dict:
    return {
        "seconds": {name: 10.0 + seed for name in names}, "fusion_seconds": 0.0, "fusion_peak_bytes": 0,
        "parameters": 1000, "bytes": {name: 4000 for name in names}, "draw_seconds_per_picture": 0.5,
        "peak_memory_bytes": 10**9,
    }  # fmt: skip


def _references(names: Sequence[str]) -> dict[str, Tensor]:
    count = len(names)
    return {
        f"references/{name}/{kind}": at_angle(place, 1.0, REFERENCES, count + PICTURES)
        for place, name in enumerate(names)
        for kind in ("image", "identity")
    }


def _row(scored: Sequence[str], names: Sequence[str], quality: float, drop: float, t: int) -> dict:
    cells = {}
    for name in scored:
        cosine = identity(quality, drop, t, names.index(name) + 1)
        cells[name] = {
            "identity_alignment": cosine, "image_alignment": cosine, "identity_ceiling": 1.0, "image_ceiling": 1.0,
            "text_alignment": 0.3, "clip_score": 0.75, "references": REFERENCES,
            "attributes": {"noun": 0.75, "background": 0.5},
        }  # fmt: skip
    shares = {"noun": 1.0, "colour": 0.8, "pattern": 0.6, "background": 0.8}
    row = {"concepts": cells, "general": {"text_alignment": 0.3 - 0.01 * t, "clip_score": 0.7, "attributes": shares}}
    if t == len(names):
        row["multi"] = [
            {"concepts": list(names[:size]), "text_alignment": 0.1 * size, "identity_alignment": 0.5,
             "image_alignment": 0.6}
            for size in (2, 3)
        ]  # fmt: skip
        row["refused"] = {"4": "The prompt has <too> many words."}
    return row


def _strip(path: Path, number: int, cosine: float) -> None:
    """Four squares of the concept's colour, the paler the less is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = Image.new("RGB", (64, 64), COLOURS[number % len(COLOURS)])
    square = Image.blend(Image.new("RGB", (64, 64), "white"), colour, max(cosine, 0.0))
    strip = Image.new("RGB", (4 * 64, 64))
    for place in range(4):
        strip.paste(square, (64 * place, 0))
    strip.save(path)
