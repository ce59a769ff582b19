"""Elastic weight aggregation (CIDM: Dong et al., arXiv 2410.17594, Eq. 3): the prompt decides how much of each
concept's change is added to the weights.

The published code (JiahuaDong/CIFC) does not do what the paper prints. Both are here; `Normalisation` and `Encoding`
tell them apart. Not covered: weights of their own for the branch without the prompt (the paper is silent, the code
takes the prompt's).
"""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from mnemon.adapters import Delta, Dense
from mnemon.errors import MnemonError
from mnemon.methods.base import Over, TrainedConcept, named
from mnemon.methods.ed_lora import EdLora
from mnemon.models.base import Base, Tokens
from mnemon.settings import PositiveFloat

Normalisation = Literal["square_frobenius", "pow4_l1", "pow8_frobenius"]
Encoding = Literal["per_concept", "joint"]
ENCODING = "encoding"
"""Key in `TrainedConcept.extra` of what `encode_alone` gave."""
TINY = 1e-12


def encode_alone(base: Base, name: str, tokens: Tokens) -> Tensor:
    """The text features of the concept's token in the prompt "<name>", layer by layer: (layers, vectors, width), fp32
    on the CPU. They depend on nothing but the concept."""
    tokens = {encoder: vectors.detach() for encoder, vectors in tokens.items()}
    with base.using_tokens({name: tokens}):
        return encode_jointly(base, [(name, tokens)])[0].cpu().clone()


@torch.no_grad()
def encode_jointly(base: Base, concepts: Sequence[tuple[str, Tokens]]) -> list[Tensor]:
    """For each concept (name, vectors) its (layers, vectors, width) in one prompt that names them all, in their order.

    Raises:
        MnemonError: they do not fit into one prompt.
    """
    counts = [next(iter(tokens.values())).shape[-2] for _, tokens in concepts]
    try:
        (features,) = base.token_features([" ".join(f"<{name}>" for name, _ in concepts)])
    except MnemonError as error:
        raise MnemonError(
            f"{len(concepts)} concepts do not fit into one prompt: set encoding to per_concept."
        ) from error
    return list(_layerwise(features, base)[:, : sum(counts)].split(counts, dim=1))


def similarities(words: Tensor, encodings: Sequence[Tensor], normalisation: Normalisation) -> Tensor:
    """M (layers, concepts): the similarity of each layer's text features (layers, words, width) to each concept.

    `square_frobenius`: the inner product with the concept's mean vector, largest over words. The others: the cosine
    with each vector of the concept, largest over words, mean over the vectors.
    """
    if normalisation == "square_frobenius":
        means = torch.stack([encoding.mean(1) for encoding in encodings], 1)  # ebar (layers, concepts, width)
        return (means @ words.mT).amax(-1)  # M = max_words c ebar^T
    unit = functional.normalize(words, dim=-1)
    cosines = [(functional.normalize(encoding, dim=-1) @ unit.mT).amax(-1).mean(-1) for encoding in encodings]
    return torch.stack(cosines, 1)


def elastic_weights(similarity: Tensor, normalisation: Normalisation) -> Tensor:
    """psi(M) for M (layers, concepts): M^2 / ||M^2||_F, M^4 / sum of M^4, or M^8 / ||M^8||_F, for each layer."""
    power, norm = {"square_frobenius": (2, 2), "pow4_l1": (4, 1), "pow8_frobenius": (8, 2)}[normalisation]
    return functional.normalize(similarity.pow(power), p=norm, dim=-1, eps=TINY)  # psi(M)


def aggregate(base: Base, deltas: Sequence[Mapping[str, Delta]], weights: Tensor) -> dict[str, Delta]:
    """sum_i w_i A_i B_i for each target module, with the weights (layers, concepts) of the target module's layer.

    One product per target module, of all concepts' factors side by side: (w_1 A_1 | w_2 A_2 | ...) (B_1; B_2; ...).
    The sum is dense, so that the cost of a denoising step does not depend on the number of concepts.
    """
    layers = base.cross_attention_layers()
    total: dict[str, Delta] = {}
    for target in {target: None for change in deltas for target in change}:
        own = weights[next(number for number, layer in enumerate(layers) if target.startswith(f"{layer}."))]
        there = [(number, change[target]) for number, change in enumerate(deltas) if target in change]
        total[target] = Dense(_weighted_sum([delta for _, delta in there], own[[number for number, _ in there]]))
    return total


def _weighted_sum(deltas: Sequence[Delta], weights: Tensor) -> Tensor:
    """The sum (d_out, d_in) of deltas (n) of factors A (d_out, r) and B (r, d_in), each times its weight (n,)."""
    ups, downs = ([delta.get_parameter(key).detach() for delta in deltas] for key in ("up", "down"))
    scales = torch.tensor([getattr(delta, "scale", 1.0) for delta in deltas])
    ranks = torch.tensor([down.shape[0] for down in downs])
    columns = (weights * scales.to(weights)).repeat_interleave(ranks.to(weights.device))
    return (torch.cat(ups, 1).to(weights) * columns) @ torch.cat(downs).to(weights)


def _layerwise(features: Tensor, base: Base) -> Tensor:
    """(layers, words, width) also of a prompt that all layers read alike."""
    features = features.float()
    return features if features.ndim == 3 else features.expand(len(base.cross_attention_layers()), -1, -1)


@dataclass(frozen=True)
class Elastic(EdLora, ABC):
    """ED-LoRAs combined by elastic weight aggregation. For layer l and a prompt with the text features c^l (n, d):

        ebar_i^l = mean of the features of concept i's token at layer l
        M_i^l    = max over the words of c^l (ebar_i^l)^T
        psi(M)   = M^2 / ||M^2||_F
        W^l      = W_0^l + s sum_i psi(M^l)_i A_i^l B_i^l

    psi is computed once per prompt, so a denoising step costs the same however many concepts there are.
    """

    per_prompt: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True

    normalisation: Normalisation = "square_frobenius"
    """psi: `square_frobenius` as above; `pow4_l1`: cosines, their fourth power, summing to one (the published code);
    `pow8_frobenius`: cosines, their eighth power, of norm one, which leaves the other concepts little."""
    encoding: Encoding = "per_concept"
    """Each concept's token is encoded in a prompt of its own (`per_concept`), or all of them in one, in the order of
    learning (`joint`, as the published code does), where a causal text encoder lets earlier ones affect later ones."""
    over: Over = "all"
    """The active concepts i: `all`, whatever the prompt, as in the paper, or those that it names (`prompted`), so that
    it is sampled as if there were no others, and from the bare base if it names none."""
    scale: PositiveFloat = 1.0
    """s. The published code takes 0.8."""

    @property
    def order_matters(self) -> str | None:
        joint = "with encoding=joint all tokens stand in one prompt, one after another"
        return joint if self.encoding == "joint" else super().order_matters

    @torch.no_grad()
    def weights(self, base: Base, learned: Sequence[TrainedConcept], prompt: str) -> Tensor:
        """psi (layers, concepts) of a prompt, without s."""
        if self.encoding == "joint":
            encodings = encode_jointly(base, [(one.name, one.tokens) for one in learned])
        else:
            encodings = [one.extra[ENCODING].to(base.device) for one in learned]
        words = _layerwise(base.token_features([prompt])[0], base)
        return elastic_weights(similarities(words, encodings, self.normalisation), self.normalisation)

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        """Without a prompt the empty one counts."""
        active = learned if self.over == "all" else named(learned, prompt)
        if not active:
            return {}
        weights = self.scale * self.weights(base, active, prompt or "")
        return aggregate(base, [concept.deltas for concept in active], weights)  # Eq. 3
