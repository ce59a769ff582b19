"""FL2T, Forget Less by Learning Together (Kaushik et al., WACV 2026, arXiv 2601.01963).

The authors publish no code, and the paper's printed equations leave much open; what is this project's reading says so
in the settings. Not covered: one set of proxies per layer, a decoder per concept, factors that start anew in step 2,
the shared-subspace term R2, relevance with the sign turned, and the revision of concepts that are stored already.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemon.methods.aggregation import ENCODING, Elastic, Normalisation, encode_alone
from mnemon.methods.base import Learner, Over, Start, Step
from mnemon.methods.ed_lora import EdLoraLearner
from mnemon.methods.overlap import Overlap, mean_overlap
from mnemon.methods.proxy_decoder import ProxyDecoder
from mnemon.models.base import Base
from mnemon.settings import NonNegativeFloat, PositiveFloat

Guidance = Literal["proxy", "cosine", "none"]
LambdaForm = Literal["softmax", "cosine", "sigmoid", "inner"]
Positive = Literal["itself", "embedding", "proxy"]
EMBEDDING, PROXY = "embedding", "proxy"
"""Keys in `TrainedConcept.extra`: C_i and P_i, (d,)."""


class ConceptSet(nn.Module):
    """The concepts of one run and those trained before, in the order of their names: C, P and A of each, and the
    network that relates them. One for all learners of the run; the first of them owns it."""

    joint: Tensor
    embeddings: Tensor
    earlier_proxies: Tensor

    def __init__(self, method: "Fl2t", learners: Sequence["Fl2tLearner"], start: Start) -> None:
        super().__init__()
        base, earlier = start.base, start.earlier
        self.method, self.learners = method, tuple(learners)
        self.names = sorted([learner.name for learner in learners] + [concept.name for concept in earlier])
        self.new = [self.names.index(learner.name) for learner in learners]
        self.old = [self.names.index(concept.name) for concept in earlier]
        width = next(iter(base.target_modules().values())).in_features  # d, of the text features
        self.register_buffer("joint", torch.tensor(False))  # whether step 2 has begun
        self.register_buffer("embeddings", self._stacked([one.extra[EMBEDDING] for one in earlier], base, width))
        self.target_modules = learners[0].target_modules
        for number, (target, delta) in enumerate(learners[0].deltas().items()):
            ups = [concept.deltas[target].get_parameter("up") for concept in earlier]
            self.register_buffer(f"ups_{number}", self._stacked(ups, base, *delta.up.shape))
        if method.guidance == "proxy":
            self.network = ProxyDecoder(width, start.generator, base.device)
            self.proxies = nn.Parameter(torch.zeros(len(learners), width, device=base.device))
            proxies = self._stacked([concept.extra[PROXY] for concept in earlier], base, width)
            self.register_buffer("earlier_proxies", proxies, persistent=False)

    def _stacked(self, stored: Sequence[Tensor], base: Base, *shape: int) -> Tensor:
        """(G, *shape): the earlier concepts' tensors at their places, zero at those of the new ones."""
        stack = torch.zeros(len(self.names), *shape, device=base.device)
        for place, tensor in zip(self.old, stored, strict=True):
            stack[place] = tensor.detach().to(stack)
        return stack

    @property
    def ups(self) -> dict[str, Tensor]:
        """A_i of every concept by target module, (G, D1, r); of those in training as they were at the end of step 1."""
        return {target: self.get_buffer(f"ups_{number}") for number, target in enumerate(self.target_modules)}

    @torch.no_grad()
    def start_joint_stage(self) -> None:
        """Begin step 2: what step 1 gave is frozen for the others, and P_i starts at C_i."""
        for place, learner in zip(self.new, self.learners, strict=True):
            self.embeddings[place] = learner.encoding().mean((0, 1)).to(self.embeddings)  # C_i
            for target, stack in self.ups.items():
                stack[place] = learner.deltas()[target].up
        if self.method.guidance == "proxy":
            self.proxies.copy_(self.embeddings[self.new])
        self.joint.fill_(True)

    def regularization_loss(self, text: Tensor, mask: Tensor | None, tasks: Tensor, shares: Tensor) -> Tensor:
        """gamma_1' R1' + gamma_2 R3 (Eq. 6), summed over the run's concepts; `tasks` (prompts,) is the index of the
        concept of each prompt of `text` (prompts, length, d); it lies on the CPU, so that no GPU is waited for.
        `shares` (prompts,) are those of `Step`."""
        method = self.method
        decoded, states = self.decode(text, mask) if method.guidance == "proxy" else (None, None)
        total = torch.zeros((), device=text.device)
        for number in tasks.unique().tolist():
            rows = torch.nonzero(tasks == number).flatten().to(text.device)
            if states is not None and decoded is not None:
                apart = shares[rows] @ self.contrast(decoded[rows], states[rows])
                total = total + method.contrast_weight * apart  # gamma_2 R3
            related = self.relevance(self.new[number], None if states is None else states[rows])
            weights = shares[rows] @ related.expand(len(rows), -1)
            total = total + method.relevance_weight * self.overlap(number, weights)  # gamma_1' R1'
        return total

    def decode(self, text: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """P' and S (prompts, G, d) under the prompts (prompts, length, d)."""
        places = torch.tensor(self.new, device=self.proxies.device)
        proxies = self.earlier_proxies.index_copy(0, places, self.proxies)
        decoded: Tensor
        decoded, states = self.network(proxies, self.embeddings, text, mask)  # P' = decoder(P; p), S = MLP([C ; P'])
        return decoded, states

    def contrast(self, decoded: Tensor, states: Tensor) -> Tensor:
        """R3 (prompts,) of P' and S (prompts, G, d)."""
        positives = {"itself": states, EMBEDDING: self.embeddings.expand_as(states), PROXY: decoded}
        return contrast(states, positives[self.method.positive], self.method.temperature)  # Eq. 4

    def relevance(self, own: int, states: Tensor | None) -> Tensor:
        """l (prompts, G) of every concept to the concept number `own`, 0 for itself; (1, G) if for all prompts."""
        method, embedding = self.method, self.embeddings[own]
        if states is not None:
            weights = relevance(embedding, states, own, method.lambda_form, method.lambda_temperature)
            return weights if method.lambda_grad else weights.detach()
        others = torch.arange(len(self.names), device=embedding.device) != own
        cosines = functional.cosine_similarity(embedding, self.embeddings, dim=-1).clamp_min(0)
        return (others * (cosines if method.guidance == "cosine" else 1.0))[None]

    def overlap(self, number: int, weights: Tensor) -> Tensor:
        """R1' of the run's concept number `number` under the relevance (G,) of all."""
        ups = {target: delta.up for target, delta in self.learners[number].deltas().items()}  # A_g
        others = [place for place in range(len(self.names)) if place != self.new[number]]
        theirs = {target: stack[others] for target, stack in self.ups.items()}  # A_i
        return weights[others] @ mean_overlap(ups, theirs, self.method.overlap) / len(others)  # Eq. 5

    def stored(self, number: int) -> dict[str, Tensor]:
        """C_i and P_i of the run's concept number `number`, on the CPU. A run without a step 2, such as that of the
        very first concept alone, stores both as step 2 would begin with them."""
        if not self.joint:
            self.start_joint_stage()
        stored = {EMBEDDING: self.embeddings[self.new[number]].cpu().clone()}
        if self.method.guidance == "proxy":
            stored[PROXY] = self.proxies[number].detach().cpu().clone()
        return stored


def relevance(embedding: Tensor, states: Tensor, own: int, form: LambdaForm, temperature: float) -> Tensor:
    """lambda (prompts, G): of every concept's S (prompts, G, d) to the concept number `own`, whose C is `embedding`
    (d,). Its own is 0. There are two concepts at least."""
    others = torch.arange(states.shape[1], device=states.device) != own
    if form == "inner":
        return (states @ embedding) * others
    cosines = functional.cosine_similarity(embedding.expand_as(states), states, dim=-1)
    if form == "cosine":
        return cosines.clamp_min(0) * others
    if form == "sigmoid":
        return (cosines / temperature).sigmoid() * others
    shares = (cosines / temperature).masked_fill(~others, -math.inf).softmax(-1)
    return (len(others) - 1) * shares


def contrast(states: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """R3 (prompts,), Eq. 4: the mean over i of -log(exp(sim(S_i, K_i) / tau) / sum_j exp(sim(S_i, K_j) / tau)), sim the
    cosine, for S and K (prompts, G, d). With K = S, as printed, the positive is constant, and the S_i only repel."""
    cosines = functional.normalize(states, dim=-1) @ functional.normalize(positives, dim=-1).mT
    target = torch.arange(states.shape[1], device=states.device).repeat(len(states))
    losses = functional.cross_entropy(cosines.flatten(0, 1) / temperature, target, reduction="none")
    return losses.view(states.shape[:2]).mean(1)


class Fl2tLearner(EdLoraLearner):
    """dW_g = A_g B_g of every target module, the layer-wise token, and a place in the set of concepts."""

    concepts: ConceptSet

    def __init__(self, method: "Fl2t", start: Start) -> None:
        super().__init__(method, start)
        self.method, self.base = method, start.base
        self.number = 0  # of its task

    def join(self, concepts: ConceptSet, number: int) -> None:
        """Become concept `number` of the run; the first one owns the set, so that its tensors are held once."""
        self.number = number
        if number == 0:
            self.concepts = concepts
        else:
            object.__setattr__(self, "concepts", concepts)  # not registered as a submodule

    def encoding(self) -> Tensor:
        """(layers, vectors, width) of the token as it is now, on the CPU."""
        return encode_alone(self.base, self.name, self.tokens())

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = super().parameter_groups()
        if self.number == 0 and (shared := list(self.concepts.parameters())):
            groups.append({"params": shared, "lr": self.method.network_lr})
        return groups

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """Of the whole set in step 2, from its owner; zero in step 1, and where there is one concept."""
        concepts = self.concepts
        if self.number or step is None or step.progress < self.method.share or len(concepts.names) == 1:
            return torch.zeros(())
        if not concepts.joint:
            concepts.start_joint_stage()
        hidden = step.condition.prompt_embeds.detach().float()
        text = hidden.mean(1) if hidden.ndim == 4 else hidden
        return concepts.regularization_loss(text, step.condition.attention_mask, step.tasks, step.shares)

    def extra(self) -> dict[str, Tensor]:
        return {ENCODING: self.encoding(), **self.concepts.stored(self.number)}

    def facts(self) -> dict[str, Any]:
        after_step_1 = [stack[self.concepts.new[self.number]] for stack in self.concepts.ups.values()]
        return {
            "factor_norm_apart": _norm(after_step_1),  # |A_g| at the end of step 1 and now: R1' also shrinks
            "factor_norm": _norm([delta.up for delta in self.deltas().values()]),
        }


def _norm(ups: Sequence[Tensor]) -> float:
    return torch.stack([up.detach().square().sum() for up in ups]).sum().sqrt().item()


@dataclass(frozen=True)
class Fl2t(Elastic):
    """Two-stage training: each concept is first trained on its own, then all are trained jointly with a
    relevance-weighted orthogonality loss.

    Step 1, the first `share` of the steps: L_diffusion alone, each concept by itself. It ends with a stable embedding
    C_i, the mean encoding of concept i's token, and factors A_i. Step 2, for concept g and its prompts p:

        P'  = decoder(P; p)              P_i learnable proxies, start at C_i; see `proxy_decoder.ProxyDecoder`
        S_i = MLP([C_i ; P'_i])
        l_i = (G - 1) softmax_{i != g}(cos(C_g, S_i) / tau_l)                                relevance
        R1' = mean over i != g and target modules of l_i mean | A_i (A_g)^T |                         Eq. 5
        R3  = mean_i -log( exp(cos(S_i, S_i) / tau) / sum_j exp(cos(S_i, S_j) / tau) )       Eq. 4
        L   = L_diffusion + gamma_1' R1' + gamma_2 R3                                        Eq. 6, without R2

    The sums run over all other concepts: those of the same run, with A_i and C_i as step 1 left them, and those stored
    already, with A_i, C_i and P_i as stored. Neither is changed by g. Decoder and MLP are shared by the concepts of a
    run and end with it. The paper does not say how concepts are combined in sampling; here it is CIDM's way with a
    sharper psi, over the concepts that the prompt names, `aggregation.Elastic`.
    """

    name: ClassVar[str] = "fl2t"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, a token for each layer, a proxy"
    stores: ClassVar[str] = "the factors, the token's vectors for each layer, their encoding, and the proxy"
    order_free: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2601.01963"

    normalisation: Normalisation = "pow8_frobenius"
    """psi, see `aggregation.Elastic`."""
    over: Over = "prompted"
    """The active concepts of a prompt: those that it names, or all of them."""
    share: NonNegativeFloat = 0.5
    """Share of the steps that are step 1."""
    relevance_weight: NonNegativeFloat = 0.1
    """gamma_1', for the mean over concepts, target modules and entries. The paper prints none; CIDM has 0.1."""
    lambda_temperature: PositiveFloat = 0.5
    """tau_l."""
    contrast_weight: NonNegativeFloat = 0.1
    """gamma_2."""
    temperature: PositiveFloat = 0.1
    """tau."""
    network_lr: PositiveFloat = 1e-3
    """Learning rate of decoder, MLP and proxies."""

    # Ablation switches
    guidance: Guidance = "proxy"
    """l_i: `proxy` as above; `cosine`: cos(C_g, C_i) where positive; `none`: 1."""
    overlap: Overlap = "absolute"
    """Of A_i A_g^T the mean of `absolute` entries, `square`s, or entries as they are (`signed`, as printed); `gram`:
    the mean absolute entry of A_i^T A_g, which does not shrink A_g where the columns are orthogonal."""
    lambda_form: LambdaForm = "softmax"
    """l_i: `softmax` as above, so that uniform relevance is 1; `cosine` where positive; `sigmoid` of cos / tau_l;
    `inner`: C_g S_i^T, as printed, of either sign and unbounded, so that negative relevance lowers the loss."""
    lambda_grad: bool = True
    """Whether R1' trains decoder, MLP and proxies too; otherwise R3 alone does."""
    positive: Positive = "itself"
    """The positive of S_i in R3, with the others' as negatives: `itself`, as printed, so that R3 only repels; its
    `embedding` C_i; or its `proxy` P'_i."""

    @property
    def independent(self) -> bool:
        return False  # step 2 relates the concepts to one another

    def begin(self, start: Start) -> Learner:
        return self.begin_together([start])[0]

    def begin_together(self, starts: Sequence[Start]) -> list[Learner]:
        learners = [Fl2tLearner(self, start) for start in starts]
        concepts = ConceptSet(self, learners, starts[0])
        for number, learner in enumerate(learners):
            learner.join(concepts, number)
        return list[Learner](learners)
