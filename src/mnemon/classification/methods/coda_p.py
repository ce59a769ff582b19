"""CODA-Prompt (Smith et al., arXiv 2211.13218): prompts as weighted sums of components."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from mnemon.classification.backbone import Backbone, Prefix
from mnemon.classification.methods.base import Batch, Features, Start, TrainedTask
from mnemon.classification.methods.l2p import check_even
from mnemon.classification.methods.prompts import PromptLearner, PromptMethod, halves, stacked
from mnemon.errors import MnemonError
from mnemon.methods.parts import sample_normal
from mnemon.settings import NonNegativeFloat, PositiveInt

KINDS = ("prompts", "keys", "attention")  # P, K, A


def weighted_prompts(queries: Tensor, prompts: Tensor, keys: Tensor, attention: Tensor) -> Tensor:
    """p = sum_m alpha_m P_m, (images, L, width), with alpha_m = cos(q (.) A_m, K_m); no softmax.

    Args:
        queries: (images, width).
        prompts: P, (M, L, width).
        keys, attention: K and A, (M, width).
    """
    alpha = cosine_similarity(queries[:, None] * attention, keys[None], dim=-1)  # (images, M)
    return torch.einsum("bm,mld->bld", alpha, prompts)


def orthonormal_rows(before: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` random rows (count, width) of length 1, orthogonal to one another and to the rows `before` (n, width).

    Raises:
        MnemonError: the width has no room for so many.
    """
    width = before.shape[1]
    if len(before) + count > width:
        raise MnemonError(
            f"There is room for {width} orthogonal components on this backbone; {len(before)} are taken, and a task "
            f"needs {count} more. Use fewer 'components'."
        )
    rows = normalize(before.double(), dim=1)
    for drawn in sample_normal((count, width), generator, before.device).double():
        for _ in range(2):  # twice is enough (Kahan, Parlett), once is not where little of the row is left
            basis, _ = torch.linalg.qr(rows.T)  # trained rows are not orthogonal any more
            drawn = drawn - basis @ (basis.T @ drawn)
        rows = torch.cat([rows, normalize(drawn, dim=0)[None]])
    return rows[len(before) :].float()


def disorder(rows: Tensor) -> Tensor:
    """mean((B B^T - I)^2) of rows B (M, width): zero if they are orthonormal."""
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().mean()


class CodaLearner(PromptLearner):
    """The task's components of every block, beside the earlier ones, which are frozen."""

    def __init__(self, method: "CodaP", start: Start) -> None:
        device, width = start.backbone.device, start.backbone.width
        shapes = {"prompts": (method.length, width), "keys": (width,), "attention": (width,)}
        names = {f"{kind}.{block}": kind for block in range(method.blocks) for kind in KINDS}
        empty = {name: torch.zeros(0, *shapes[kind], device=device) for name, kind in names.items()}
        self.method = method
        before = {name: stacked(start.earlier, name, device) if start.earlier else empty[name] for name in names}
        fresh = {
            name: orthonormal_rows(rows.flatten(1), method.components, start.generator).view(-1, *rows.shape[1:])
            for name, rows in before.items()
        }
        super().__init__(method.learning_rate, fresh)
        for name, rows in before.items():
            self.register_buffer(f"before_{name.replace('.', '_')}", rows, persistent=False)

    def rows(self) -> dict[str, Tensor]:
        """All components up to the task's, by name."""
        before = dict(self.named_buffers())
        return {
            name: torch.cat([before[f"before_{name.replace('.', '_')}"], own]) for name, own in self.trained().items()
        }

    def features(self, backbone: Backbone, batch: Batch) -> Tensor:
        assert batch.queries is not None
        return backbone.features(batch.images, self.method.prefixes(self.rows(), batch.queries))

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """mu times the disorder of P, K and A, summed over blocks."""
        if not self.method.ortho_weight:
            return torch.zeros((), device=features.device)
        terms = [disorder(rows.flatten(1)) for rows in self.rows().values()]
        return self.method.ortho_weight * torch.stack(terms).sum()


@dataclass(frozen=True)
class CodaP(PromptMethod):
    """Prefixes that are weighted sums of components, in the first five blocks:

        alpha_m = cos(q(x) (.) A_m, K_m)        q(x): the feature of x in the frozen backbone
        p       = sum_m alpha_m P_m             P_m in R^{L x D}; the first half are keys, the last half values
        L       = CE + mu sum over blocks of [g(K) + g(A) + g(P)],     g(B) = mean((B B^T - I)^2)

    A task appends its own components, orthogonal to all earlier ones and to one another at the start; those of earlier
    tasks are frozen. The paper divides a pool of 100 by the number of tasks.
    """

    name: ClassVar[str] = "coda-p"
    source: ClassVar[str] = "arXiv 2211.13218"
    trains: ClassVar[str] = "components of prefixes, their keys and attention vectors"
    stores: ClassVar[str] = "these"

    components: PositiveInt = 10
    """New components of each task: 100 for 10 tasks in the paper, 5 a task for 20."""
    length: PositiveInt = 8
    """L, the rows of a prompt: half keys, half values."""
    blocks: PositiveInt = 5
    """Blocks with prefixes, from the first on."""
    ortho_weight: NonNegativeFloat = 0.0
    """mu; the released code has 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_even(self.length)

    @property
    def depth(self) -> int:
        return self.blocks

    def prefixes(self, rows: dict[str, Tensor], queries: Tensor) -> dict[int, Prefix]:
        """By block, from all components `prompts.<block>`, `keys.<block>` and `attention.<block>`."""
        return {
            block: halves(weighted_prompts(queries, *(rows[f"{kind}.{block}"] for kind in KINDS)))
            for block in range(self.blocks)
        }

    def begin(self, start: Start) -> CodaLearner:
        return CodaLearner(self, start)

    def features(self, backbone: Backbone, learned: Sequence[TrainedTask]) -> Features:
        rows = {name: stacked(learned, name, backbone.device) for name in learned[-1].extra}

        def read(images: Tensor, queries: Tensor | None) -> Tensor:
            assert queries is not None
            return backbone.features(images, self.prefixes(rows, queries))

        return read
