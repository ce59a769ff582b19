"""The figures of a run from its record, and of a method from its runs. Defined in `FIGURES`."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, float64, tensor
from torch.nn.functional import normalize

from mnemon.evaluation import matrix as scores
from mnemon.evaluation.alignment import zero_shot_drift
from mnemon.evaluation.confusion import confusion, recognised
from mnemon.evaluation.figures import FIGURES
from mnemon.evaluation.intervals import Interval, interval, t_quantile
from mnemon.evaluation.mmd import a_mmd, f_mmd, kernel_scaled, kid
from mnemon.evaluation.run_record import RunRecord

Numbers = dict[str, float | None]


def figures_of(record: RunRecord) -> Numbers:
    """Every figure of a finished run; None where the record lacks what it needs. What needs the features is known from
    before where they were left out."""
    figures = _alignments(record) | _distributions(record) | _multi(record) | _base(record) | _attributes(record)
    figures |= _confusion(record) | _costs(record) | _alone(record)
    known = {} if record.features else record.known_figures
    return {name: known.get(name) if figures[name] is None else figures[name] for name in FIGURES}


def interval_of(runs: Sequence[Numbers], name: str) -> Interval:
    """The figure's mean over runs and its confidence."""
    return interval([numbers[name] for numbers in runs])


def spread_over_orders(records: Sequence[RunRecord], runs: Sequence[Numbers], name: str) -> float | None:
    """Standard deviation of a figure over orders, each the mean over its seeds; None for fewer than two orders."""
    orders: dict[int, list[float]] = {}
    for record, numbers in zip(records, runs, strict=True):
        value = numbers[name]
        if value is not None:
            orders.setdefault(record.order, []).append(value)
    means = [sum(values) / len(values) for values in orders.values()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def confusion_of(record: RunRecord) -> Tensor | None:
    """(N, N) shares of the images of concept j after the last concept that are nearest to concept k."""
    if not record.features:
        return tensor(record.known_confusion, dtype=float64) if record.known_confusion else None
    images, references = _final(record, "identity"), _references(record, "identity")
    return None if images is None or references is None else confusion(images, references)


def _alignments(record: RunRecord) -> Numbers:
    identity = scores.figures(record.matrix("identity_alignment"))
    final = {name: scores.figures(record.matrix(name))["final_average"] for name in ("text_alignment", "clip_score")}
    image = scores.figures(record.matrix("image_alignment"))
    kept = ("forgetting_from_best", "forgetting_one_step", "backward_transfer", "retention", "learning_accuracy")
    return final | {name: identity[name] for name in kept} | {
        "identity_alignment": identity["final_average"],
        "image_alignment": image["final_average"],
        "forgetting": identity["forgetting_from_first"],
        "forgetting_image": image["forgetting_from_first"],
        "learning_identity_first10": identity["learning_accuracy_first10"],
        "learning_identity_last10": identity["learning_accuracy_last10"],
        "identity_of_ceiling": _of_ceiling(record),
    }  # fmt: skip


def _alone(record: RunRecord) -> Numbers:
    alone = _mean(record.alone.get(name, {}).get("identity_alignment") for name in record.names)
    end = _mean(record.cell(len(record.names), name).get("identity_alignment") for name in record.names)
    kept = end / alone if alone and end is not None else None
    return {"alone_identity_alignment": alone, "identity_of_alone": kept}


def _of_ceiling(record: RunRecord) -> float | None:
    cells = [record.cell(len(record.names), name) for name in record.names]
    pairs = [(cell.get("identity_alignment"), cell.get("identity_ceiling")) for cell in cells]
    return _mean(None if not ceiling or score is None else score / ceiling for score, ceiling in pairs)


def _distributions(record: RunRecord) -> Numbers:
    photos, final = _scaled(_references(record, "image")), _scaled(_final(record, "image"))
    learned = _scaled(_all(record.images(t, name, "image") for t, name in enumerate(record.names, start=1)))
    return {
        "a_mmd": None if photos is None or final is None else a_mmd(photos, final),
        "f_mmd": None if learned is None or final is None or len(final) < 2 else f_mmd(learned, final, paired=True),
        "kid": None if photos is None or final is None else _mean(map(kid, photos, final)),
        "mmd_just_learned": None if photos is None or learned is None else a_mmd(photos, learned),
    }


def _multi(record: RunRecord) -> Numbers:
    entries = record.last_row.get("multi") or []
    kinds = ("text", "identity", "image")
    return {f"multi_{kind}_alignment": multi_alignment(entries, f"{kind}_alignment") for kind in kinds}


def multi_alignment(entries: Sequence[dict[str, Any]], score: str, count: int | None = None) -> float | None:
    """Mean of a score over a row's prompts with several concepts, or over those with `count` concepts only."""
    return _mean(one.get(score) for one in entries if count is None or len(one["concepts"]) == count)


def _base(record: RunRecord) -> Numbers:
    bare, adapted = record.control(0), record.control(len(record.names))
    general = record.last_row.get("general", {})
    return {
        "zero_shot_drift": None if bare is None or adapted is None else zero_shot_drift(bare, adapted),
        "general_text_alignment": general.get("text_alignment"),
        "general_attribute_accuracy": _mean(general.get("attributes", {}).values()),
    }


def _attributes(record: RunRecord) -> Numbers:
    cells = [cell.get("attributes", {}) for cell in record.last_row.get("concepts", {}).values()]
    shares = {kind: [cell[kind] for cell in cells if kind in cell] for kind in ("noun", "background")}
    return {f"{kind}_accuracy": _mean(values) for kind, values in shares.items()}


def _confusion(record: RunRecord) -> Numbers:
    shares = confusion_of(record)
    return {"recognised": None if shares is None else recognised(shares), "picture_error": _image_error(record)}


def _image_error(record: RunRecord) -> float | None:
    """Half of the 95 % interval of a concept's last identity alignment over its images, mean over concepts."""
    final, known = _final(record, "identity"), _references(record, "identity")
    if final is None or known is None or min(len(images) for images in final) < 2:
        return None
    halves = []
    for images, references in zip(final, known, strict=True):
        cosines = (normalize(images.float(), dim=-1) @ normalize(references.float(), dim=-1).T).mean(1)
        halves.append(t_quantile(len(cosines) - 1) * float(cosines.std()) / math.sqrt(len(cosines)))
    return sum(halves) / len(halves)


def _costs(record: RunRecord) -> Numbers:
    plain = ("parameters", "fusion_seconds", "fusion_peak_bytes", "draw_seconds_per_picture", "peak_memory_bytes")
    return {name: record.costs.get(name) for name in plain} | {
        "bytes": _mean(record.costs["bytes"].values()),
        "seconds_per_concept": _mean(record.costs["seconds"].values()),
    }


def _final(record: RunRecord, kind: str) -> list[Tensor] | None:
    return _all(record.images(len(record.names), name, kind) for name in record.names)


def _references(record: RunRecord, kind: str) -> list[Tensor] | None:
    return _all(record.references(name, kind) for name in record.names)


def _all(found: Iterable[Tensor | None]) -> list[Tensor] | None:
    """All of them, or None if one is missing."""
    features = list(found)
    known = [one for one in features if one is not None]
    return known if len(known) == len(features) else None


def _scaled(features: list[Tensor] | None) -> list[Tensor] | None:
    """For the MMD, which needs two images of each; None if there are fewer."""
    if features is None or min(len(one) for one in features) < 2:
        return None
    return [kernel_scaled(one) for one in features]


def _mean(values: Iterable[float | None]) -> float | None:
    """None if one is missing, or if there is none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None
