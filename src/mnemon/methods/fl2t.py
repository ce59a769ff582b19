"""FL2T, Forget Less by Learning Together (Kaushik et al., WACV 2026, arXiv 2601.01963).

The authors publish no code, and the paper's printed equations leave much open; what is this project's reading says so
in the settings. Not covered: one set of proxies per layer, a decoder per concept, factors that start anew in step 2,
the shared-subspace term R2, relevance with the sign turned, and the revision of concepts that are stored already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemon.methods.aggregation import ENCODING, Elastic, Normalisation, encode_alone
from mnemon.methods.base import Learner, Over, Start, Step
from mnemon.methods.concept_set import EMBEDDING, PROXY, ConceptSet
from mnemon.methods.ed_lora import EdLoraLearner
from mnemon.methods.overlap import Overlap, mean_overlap
from mnemon.methods.proxy_decoder import LambdaForm, contrast, relevance
from mnemon.methods.transfer import Mixed, Transfer
from mnemon.settings import NonNegativeFloat, PositiveFloat

Guidance = Literal["proxy", "cosine", "none"]
Positive = Literal["itself", "embedding", "proxy"]


class Fl2tLearner(EdLoraLearner):
    """dW_g of every target module, the layer-wise token, and a place in the set of concepts. The first learner of a run
    owns the set, and does what concerns all of them."""

    concepts: ConceptSet

    def __init__(self, method: "Fl2t", start: Start) -> None:
        super().__init__(method, start)
        self.method, self.base = method, start.base
        self.factors = nn.ModuleList(Mixed(own) for own in super().deltas().values())
        self.number = 0  # of its task

    def deltas(self) -> dict[str, Mixed]:
        return dict(zip(self.target_modules, self.factors, strict=True))  # type: ignore[arg-type]

    def join(self, run: Sequence["Fl2tLearner"], concepts: ConceptSet) -> None:
        """Become one of the run; the set is registered as a submodule of its owner alone, so that it is held once."""
        self.run, self.number, self.begins = tuple(run), run.index(self), False
        if self.owner:
            self.concepts = concepts
        else:
            object.__setattr__(self, "concepts", concepts)

    @property
    def owner(self) -> bool:
        return self.number == 0

    def encoding(self) -> Tensor:
        """(layers, vectors, width) of the token as it is now, on the CPU."""
        return encode_alone(self.base, self.name, self.tokens())

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = super().parameter_groups()
        if self.owner and (shared := list(self.concepts.parameters())):
            groups.append({"params": shared, "lr": self.method.network_lr})
        return groups

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """Of the whole run in step 2, from its owner; zero in step 1, and where there is one concept."""
        if not self.owner or step is None or step.progress < self.method.share or len(self.concepts.names) == 1:
            return torch.zeros(())
        if not self.concepts.joint:
            self.begin_joint_stage()
        hidden = step.condition.prompt_embeds.detach().float()
        text = hidden.mean(1) if hidden.ndim == 4 else hidden
        return self.joint_loss(text, step.condition.attention_mask, step.tasks, step.shares)

    def begin_joint_stage(self) -> None:
        self.concepts.start_joint_stage([learner.encoding().mean((0, 1)) for learner in self.run])  # C_g
        self.begins = True

    def joint_loss(self, text: Tensor, mask: Tensor | None, tasks: Tensor, shares: Tensor) -> Tensor:
        """gamma_1' R1' + gamma_2 R3, summed over the run's concepts; `tasks` (prompts,) is the index of the concept of
        each prompt of `text` (prompts, length, d), on the CPU, so that no GPU is waited for; `shares` as in `Step`."""
        method, concepts = self.method, self.concepts
        decoded, states = concepts.decode(text, mask) if method.guidance == "proxy" else (None, None)  # P', S
        total = torch.zeros((), device=text.device)
        for number in tasks.unique().tolist():
            rows = torch.nonzero(tasks == number).flatten().to(text.device)
            if states is not None and decoded is not None:
                r3 = shares[rows] @ self.contrast(decoded[rows], states[rows])
                total = total + method.contrast_weight * r3
            by_prompt = self.relevance(number, None if states is None else states[rows])
            r1 = self.overlap(number, shares[rows] @ by_prompt.expand(len(rows), -1))
            total = total + method.relevance_weight * r1  # Eq. 6, beside L_diffusion
        return total

    def relevance(self, number: int, states: Tensor | None) -> Tensor:
        """lambda (prompts, G) of every concept to the run's concept `number`, 0 for itself; (1, G) if for all
        prompts."""
        method, own, embeddings = self.method, self.concepts.new[number], self.concepts.embeddings
        if states is not None:
            weights = relevance(embeddings[own], states, own, method.lambda_form, method.lambda_temperature)
            return weights if method.lambda_grad else weights.detach()
        others = torch.arange(len(embeddings), device=embeddings.device) != own
        cosines = functional.cosine_similarity(embeddings[own], embeddings, dim=-1).clamp_min(0)
        return (others * (cosines if method.guidance == "cosine" else 1.0))[None]

    def overlap(self, number: int, weights: Tensor) -> Tensor:
        """R1' of the run's concept `number` under the relevance (G,) of all."""
        own, changes = self.concepts.new[number], self.run[number].deltas()
        others = [place for place in range(len(self.concepts.names)) if place != own]
        theirs = {target: ups[others] for target, ups, _ in self.concepts.factors()}  # A_i
        means = mean_overlap({target: delta.up for target, delta in changes.items()}, theirs, self.method.overlap)
        return weights[others] @ means / len(others)  # Eq. 5

    def contrast(self, decoded: Tensor, states: Tensor) -> Tensor:
        """R3 (prompts,) of P' and S (prompts, G, d)."""
        positives = {"itself": states, EMBEDDING: self.concepts.embeddings.expand_as(states), PROXY: decoded}
        return contrast(states, positives[self.method.positive], self.method.temperature)  # Eq. 4

    def all_relevances(self) -> Tensor:
        """lambda (run, G) of every concept to each of the run, for the prompt that is C_g alone."""
        texts = self.concepts.embeddings[self.concepts.new][:, None]
        states = self.concepts.decode(texts)[1] if self.method.guidance == "proxy" else [None] * len(texts)
        return torch.cat([self.relevance(number, None if s is None else s[None]) for number, s in enumerate(states)])

    def mix(self) -> None:
        """dW_g = A_g B_g + sum_i beta_gi A_i B_i for all of the run, with beta of this moment."""
        count = len(self.concepts.names)
        if self.owner and self.concepts.joint and self.method.transfer != "none" and count > 1:
            weights = self.method.transfer_weight * self.all_relevances() / (count - 1)  # beta
            self.concepts.mix(weights, live=self.method.transfer == "shared")

    def before_step(self, generator: torch.Generator) -> None:
        if self.method.transfer != "start":
            self.mix()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        if self.method.transfer == "start" and self.begins:
            self.mix()
            for delta in (delta for learner in self.run for delta in learner.deltas().values()):
                delta.absorb()
        self.begins = False

    @torch.no_grad()
    def on_train_end(self, losses: object, generator: torch.Generator) -> None:
        self.before_step(generator)

    def extra(self) -> dict[str, Tensor]:
        """A run without a step 2, such as that of the very first concept alone, stores C and P as it would begin."""
        if not self.concepts.joint:
            self.begin_joint_stage()
        embedding = self.concepts.embeddings[self.concepts.new[self.number]].cpu().clone()
        stored = {ENCODING: self.encoding(), EMBEDDING: embedding}
        if self.method.guidance == "proxy":
            stored[PROXY] = self.concepts.proxies[self.number].detach().cpu().clone()
        return stored

    @torch.no_grad()
    def facts(self) -> dict[str, Any]:
        place, weights = self.concepts.new[self.number], self.all_relevances()[self.number].tolist()
        names = zip(self.concepts.names, weights, strict=True)
        return {
            "factor_norm_apart": _norm([ups[place] for _, ups, _ in self.concepts.factors()]),  # |A_g| after step 1
            "factor_norm": _norm([delta.up for delta in self.deltas().values()]),  # and now: R1' also shrinks
            "relevance": {name: round(weight, 4) for name, weight in names if name != self.name},
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
        S_i = P_i + MLP([C_i ; P'_i])
        l_i = (G - 1) softmax_{i != g}(cos(C_g, S_i) / tau_l)                                relevance
        R1' = mean over i != g and target modules of l_i overlap(A_i, A_g)                         Eq. 5
        R3  = mean_i -log( exp(cos(S_i, C_i) / tau) / sum_j exp(cos(S_i, C_j) / tau) )       Eq. 4
        L   = L_diffusion + gamma_1' R1' + gamma_2 R3                                        Eq. 6, without R2
        dW_g = A_g B_g + sum_{i != g} s l_i / (G - 1) A_i B_i                          with `transfer`

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
    follows_progress: ClassVar[bool] = True

    normalisation: Normalisation = "pow8_frobenius"
    """psi, see `aggregation.Elastic`."""
    over: Over = "prompted"
    """The active concepts of a prompt: those that it names, or all of them."""
    share: NonNegativeFloat = 0.5
    """Share of the steps that are step 1."""
    relevance_weight: NonNegativeFloat = 0.1
    """gamma_1', for the mean over concepts, target modules and entries. The paper prints none; CIDM has 0.1."""
    lambda_temperature: PositiveFloat = 0.1
    """tau_l."""
    contrast_weight: NonNegativeFloat = 0.1
    """gamma_2."""
    temperature: PositiveFloat = 0.1
    """tau."""
    network_lr: PositiveFloat = 1e-3
    """Learning rate of decoder, MLP and proxies."""
    transfer: Transfer = "none"
    """How dW_g uses the others' factors in step 2: `none`, not at all; `start`: as it begins, A_g B_g becomes the sum
    above and goes on alone; `add`: the sum in every step, the others as step 1 left them; `shared`: those of the run as
    they are now, so that g trains the others' factors too."""
    transfer_weight: NonNegativeFloat = 0.5
    """s, the sum of the others' weights where relevance is `softmax`."""

    # Ablation switches
    guidance: Guidance = "proxy"
    """l_i: `proxy` as above; `cosine`: cos(C_g, C_i) where positive; `none`: 1."""
    overlap: Overlap = "absolute"
    """Of A_i A_g^T the mean of `absolute` entries, `square`s, or entries as they are (`signed`, as printed); `gram`:
    the mean absolute entry of A_i^T A_g, which does not shrink A_g where the columns are orthogonal."""
    lambda_form: LambdaForm = "softmax"
    """l_i: `softmax` as above, so that uniform relevance is 1; `cosine` where positive; `sigmoid` of cos / tau_l;
    `inner`: C_g S_i^T, as printed, of either sign and unbounded, so that negative relevance lowers the loss."""
    lambda_grad: bool = False
    """Whether R1' trains decoder, MLP and proxies too; otherwise R3 alone does."""
    positive: Positive = "embedding"
    """The positive of S_i in R3, with the others' as negatives: `itself`, as printed, so that R3 only repels; its
    `embedding` C_i; or its `proxy` P'_i."""

    @property
    def independent(self) -> bool:
        return False  # step 2 relates the concepts to one another

    def begin(self, start: Start) -> Learner:
        return self.begin_together([start])[0]

    def begin_together(self, starts: Sequence[Start]) -> list[Learner]:
        learners = [Fl2tLearner(self, start) for start in starts]
        changes = {learner.name: learner.deltas() for learner in learners}
        concepts = ConceptSet(changes, starts[0], proxies=self.guidance == "proxy")
        for learner in learners:
            learner.join(learners, concepts)
        return list[Learner](learners)
