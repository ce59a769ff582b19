"""How far a base has moved from what it sampled before any concept was learned."""

from torch import Tensor

from mnemon.evaluation.alignment import matched_cosines


def zero_shot_drift(bare: Tensor, adapted: Tensor) -> float:
    """(1 - mean_i cosine(bare_i, adapted_i)) / 2 of features (n, d), same prompts and seeds; 0..1, lower is better.

    The drift of PEFT's image generation benchmark: control prompts without a concept, sampled by the bare base and
    by the adapted one. Crude: it counts every change, for the worse or not, and a model that learned nothing has none.
    """
    return (1 - float(matched_cosines(bare, adapted).mean())) / 2
