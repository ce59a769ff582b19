"""FL2T, Forget Less by Learning Together (Kaushik et al., WACV 2026, arXiv 2601.01963).

The authors publish no code, and the paper's printed equations leave much open; what is this project's reading says so
in the settings. Not covered: one set of proxies a layer, a decoder a concept, factors that start anew in step 2, the
shared-subspace term R2, relevance with the sign turned, and the revision of concepts that are stored already.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemon.methods.aggregation import Elastic, ElasticLearner, Normalisation
from mnemon.methods.base import Over, Step, TrainedConcept
from mnemon.methods.relations import LambdaForm, Positive, Relations, contrast, relevance
from mnemon.methods.subspaces import Overlap, mean_overlap
from mnemon.models.base import Base
from mnemon.settings import check_settings

Guidance = Literal["proxy", "cosine", "none"]
EMBEDDING, PROXY = "embedding", "proxy"
"""Keys in `TrainedConcept.extra`: C_i and P_i, (d,)."""


class Circle(nn.Module):
    """The concepts of one run and those learned before, in the order of their names: C, P and A of each, and the
    network that relates them. One for all learners of the run; the first of them owns it."""

    met: Tensor
    embeddings: Tensor
    earlier_proxies: Tensor

    def __init__(
        self,
        method: "Fl2t",
        learners: Sequence["Fl2tLearner"],
        earlier: Sequence[TrainedConcept],
        base: Base,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.method, self.learners = method, tuple(learners)
        self.names = sorted([one.name for one in learners] + [one.name for one in earlier])
        self.new = [self.names.index(one.name) for one in learners]
        old = [self.names.index(one.name) for one in earlier]
        width = next(iter(base.target_modules().values())).in_features  # d, of what the target modules hear

        def stacked(stored: Sequence[Tensor], *shape: int) -> Tensor:
            """(G, ...): the earlier concepts' tensors at their places, zero at those of the new ones."""
            stack = torch.zeros(len(self.names), *shape, device=base.device)
            for place, tensor in zip(old, stored, strict=True):
                stack[place] = tensor.detach().to(stack)
            return stack

        self.register_buffer("met", torch.tensor(False))  # whether step 2 has begun
        self.register_buffer("embeddings", stacked([one.extra[EMBEDDING] for one in earlier], width))
        self.target_modules = learners[0].target_modules
        for number, (target, delta) in enumerate(learners[0].deltas().items()):
            ups = [one.deltas[target].get_parameter("up") for one in earlier]
            self.register_buffer(f"ups_{number}", stacked(ups, *delta.up.shape))
        if method.guidance == "proxy":
            self.relations = Relations(width, generator, base.device)
            self.proxies = nn.Parameter(torch.zeros(len(learners), width, device=base.device))
            proxies = stacked([one.extra[PROXY] for one in earlier], width)
            self.register_buffer("earlier_proxies", proxies, persistent=False)

    @property
    def ups(self) -> dict[str, Tensor]:
        """A_i of every concept by target module, (G, D1, r); of those being learned as they were at the end of step 1."""
        return {target: self.get_buffer(f"ups_{number}") for number, target in enumerate(self.target_modules)}

    @torch.no_grad()
    def meet(self) -> None:
        """Begin step 2: what step 1 gave is held for the others, and P_i starts at C_i."""
        for place, learner in zip(self.new, self.learners, strict=True):
            self.embeddings[place] = learner.encoding().mean((0, 1)).to(self.embeddings)
            for target, stack in self.ups.items():
                stack[place] = learner.deltas()[target].up
        if self.method.guidance == "proxy":
            self.proxies.copy_(self.embeddings[self.new])
        self.met.fill_(True)

    def states(self, text: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """P' and S (prompts, G, d) under the prompts (prompts, length, d)."""
        places = torch.tensor(self.new, device=self.proxies.device)
        proxies = self.earlier_proxies.index_copy(0, places, self.proxies)
        decoded, states = self.relations(proxies, self.embeddings, text, mask)
        return decoded, states

    def regularization_loss(self, text: Tensor, mask: Tensor | None, tasks: Tensor) -> Tensor:
        """The weight of R1' times R1', and gamma_2 R3, summed over the run's concepts; `tasks` (prompts,) says for
        which of them each prompt of `text` (prompts, length, d) is; it lies on the CPU, so that no GPU is waited for.
        """
        method = self.method
        decoded, states = self.states(text, mask) if method.guidance == "proxy" else (None, None)
        total = torch.zeros((), device=text.device)
        for number in tasks.unique().tolist():
            rows = torch.nonzero(tasks == number).flatten().to(text.device)
            if states is not None and decoded is not None:
                total = total + method.contrast_weight * self.contrast(decoded[rows], states[rows])
            relevant = self.relevance(self.new[number], None if states is None else states[rows])
            total = total + method.relevance_weight * self.overlap(number, relevant)
        return total

    def contrast(self, decoded: Tensor, states: Tensor) -> Tensor:
        """R3 of P' and S (prompts, G, d)."""
        towards = {"itself": states, EMBEDDING: self.embeddings.expand_as(states), PROXY: decoded}
        return contrast(states, towards[self.method.positive], self.method.temperature)

    def relevance(self, own: int, states: Tensor | None) -> Tensor:
        """lambda (G,) of every concept to the concept number `own`, the mean over prompts; 0 for itself."""
        method, embedding = self.method, self.embeddings[own]
        if states is not None:
            weights = relevance(embedding, states, own, method.lambda_form, method.lambda_temperature).mean(0)
            return weights if method.lambda_grad else weights.detach()
        others = torch.arange(len(self.names), device=embedding.device) != own
        cosines = functional.cosine_similarity(embedding, self.embeddings, dim=-1).clamp_min(0)
        return others * (cosines if method.guidance == "cosine" else 1.0)

    def overlap(self, number: int, weights: Tensor) -> Tensor:
        """R1' of the run's concept number `number` under the relevance (G,) of all."""
        ups = {target: delta.up for target, delta in self.learners[number].deltas().items()}
        others = [place for place in range(len(self.names)) if place != self.new[number]]
        theirs = {target: stack[others] for target, stack in self.ups.items()}
        return weights[others] @ mean_overlap(ups, theirs, self.method.overlap) / len(others)

    def kept(self, number: int) -> dict[str, Tensor]:
        """C_i and P_i of the run's concept number `number`, on the CPU. A run without a step 2, such as that of the
        very first concept alone, leaves both as step 2 would begin with them."""
        if not self.met:
            self.meet()
        kept = {EMBEDDING: self.embeddings[self.new[number]].cpu().clone()}
        if self.method.guidance == "proxy":
            kept[PROXY] = self.proxies[number].detach().cpu().clone()
        return kept


class Fl2tLearner(ElasticLearner):
    """dW_g = A_g B_g of every target module, the layer-wise token, and a place in the circle of concepts."""

    method: "Fl2t"
    circle: Circle

    def __init__(
        self, method: "Fl2t", name: str, class_noun: str | None, base: Base, generator: torch.Generator
    ) -> None:
        super().__init__(method, name, class_noun, base, generator)
        self.number = 0  # of its lesson
        self.norm_apart = 0.0

    def join(self, circle: Circle, number: int) -> None:
        """Take part in the circle; the run's first concept owns it, so that its tensors are held once."""
        self.number = number
        if number == 0:
            self.circle = circle
        else:
            object.__setattr__(self, "circle", circle)  # known, but not registered

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = super().parameter_groups()
        if self.number == 0 and (shared := list(self.circle.parameters())):
            groups.append({"params": shared, "lr": self.method.network_lr})
        return groups

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """R1' and R3 of the whole circle in step 2, from its owner; zero in step 1, and where there is one concept."""
        circle = self.circle
        if self.number or step is None or step.progress < self.method.share or len(circle.names) == 1:
            return torch.zeros(())
        if not circle.met:
            circle.meet()
        condition = step.condition
        hidden = condition.prompt_embeds.detach().float()
        text = hidden.mean(1) if hidden.ndim == 4 else hidden
        return circle.regularization_loss(text, condition.attention_mask, step.tasks)

    def finish(self) -> TrainedConcept:
        learned, circle = super().finish(), self.circle
        extra = {**learned.extra, **circle.kept(self.number)}
        apart = (stack[circle.new[self.number]] for stack in circle.ups.values())
        facts = {
            "factor_norm_apart": _norm(list(apart)),  # |A_g| at the end of step 1 and now: R1' also shrinks
            "factor_norm": _norm([delta.up for delta in self.deltas().values()]),
        }
        return replace(learned, facts=facts, extra=extra)


def _norm(ups: Sequence[Tensor]) -> float:
    return torch.stack([up.detach().square().sum() for up in ups]).sum().sqrt().item()


@dataclass(frozen=True)
class Fl2t(Elastic):
    """Concepts that first learn each for itself, and then look at one another.

    Step 1, the first `share` of the steps: L_diffusion alone, each concept by itself. It ends with a stable embedding
    C_i, the mean encoding of concept i's token, and factors A_i. Step 2, for concept g and its prompts p:

        P'  = decoder(P; p)              P_i learnable proxies, start at C_i; see `relations.Relations`
        S_i = MLP([C_i ; P'_i])
        l_i = (G - 1) softmax_{i != g}(cos(C_g, S_i) / tau_l)                                relevance
        R1' = mean over i != g and target modules of l_i mean | A_i (A_g)^T |                         Eq. 5
        R3  = mean_i -log( exp(cos(S_i, S_i) / tau) / sum_j exp(cos(S_i, S_j) / tau) )       Eq. 4
        L   = L_diffusion + gamma_1' R1' + gamma_2 R3                                        Eq. 6, without R2

    The sums run over all other concepts: those learned in the same run, with A_i and C_i as step 1 left them, and those
    stored already, with A_i, C_i and P_i as stored. Neither is changed by g. Decoder and MLP are shared by the concepts
    of a run and end with it. The paper does not say how concepts are combined when drawing; here it is CIDM's way with
    a sharper psi, over the concepts that the prompt names, `aggregation.Elastic`.
    """

    name: ClassVar[str] = "fl2t"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, a token for each layer, a proxy"
    stores: ClassVar[str] = "the factors, the token's vectors for each layer, their encoding, and the proxy"
    order_free: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2601.01963"

    normalisation: Normalisation = "pow8_frobenius"
    """psi, see `aggregation.Elastic`."""
    over: Over = "prompted"
    """Weigh the concepts that the prompt names, or all of them for every prompt."""
    guidance: Guidance = "proxy"
    """l_i: `proxy` as above; `cosine`: cos(C_g, C_i) where positive; `none`: 1."""
    share: float = 0.5
    """Share of the steps that are step 1."""
    relevance_weight: float = 0.1
    """gamma_1', for the mean over concepts, target modules and entries. The paper prints none; CIDM has 0.1."""
    overlap: Overlap = "absolute"
    """Of A_i A_g^T the mean of `absolute` entries, `square`s, or entries as they are (`signed`, as printed); `gram`:
    the mean absolute entry of A_i^T A_g, which does not shrink A_g where the columns are orthogonal."""
    lambda_form: LambdaForm = "softmax"
    """`softmax` as above; `cosine` where positive; `sigmoid` of cos / tau_l; `inner`: C_g S_i^T, as printed, with which
    negative relevance pays."""
    lambda_temperature: float = 0.5
    """tau_l."""
    lambda_grad: bool = True
    """Whether R1' trains decoder, MLP and proxies too; otherwise R3 alone does."""
    contrast_weight: float = 0.1
    """gamma_2."""
    temperature: float = 0.1
    """tau."""
    positive: Positive = "itself"
    """What S_i is drawn to in R3: `itself`, as printed; its `embedding` C_i; or its `proxy` P'_i."""
    network_lr: float = 1e-3
    """Learning rate of decoder, MLP and proxies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("lambda_temperature", "temperature", "network_lr")
        check_settings(self, positive, ("share", "relevance_weight", "contrast_weight"))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> Fl2tLearner:
        return self._circle([(name, class_noun)], base, earlier, [generator])[0]

    def begin_together(
        self,
        names: Sequence[tuple[str, str | None]],
        base: Base,
        earlier: Sequence[TrainedConcept],
        generators: Sequence[torch.Generator],
    ) -> list[Any]:
        if len(names) == 1:
            return super().begin_together(names, base, earlier, generators)
        return self._circle(names, base, earlier, generators)

    def _circle(
        self,
        names: Sequence[tuple[str, str | None]],
        base: Base,
        earlier: Sequence[TrainedConcept],
        generators: Sequence[torch.Generator],
    ) -> list[Fl2tLearner]:
        """A learner for each, all of one circle."""
        pairs = zip(names, generators, strict=True)
        learners = [Fl2tLearner(self, name, class_noun, base, generator) for (name, class_noun), generator in pairs]
        circle = Circle(self, learners, earlier, base, generators[0])
        for number, learner in enumerate(learners):
            learner.join(circle, number)
        return learners
