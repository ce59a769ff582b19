"""The concepts that FL2T relates to one another: those of one run, and those learned before."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from mnemon.methods.base import Start
from mnemon.methods.proxy_decoder import ProxyDecoder
from mnemon.methods.transfer import Mixed, mixture

EMBEDDING, PROXY = "embedding", "proxy"
"""Keys in `TrainedConcept.extra`: C_i and P_i, (d,)."""
SEED = 0  # of the network: every run of a library starts it alike


class ConceptSet(nn.Module):
    """C, P, A and B of every concept, in the order of their names, and the network that relates them.

    Others see a concept of the run as it was at the end of step 1, and one learned before as it is stored.
    """

    joint: Tensor
    embeddings: Tensor
    earlier_proxies: Tensor

    def __init__(self, changes: Mapping[str, Mapping[str, Mixed]], start: Start, proxies: bool) -> None:
        """`changes`: of each concept of the run, in training, by target module; `proxies`: whether there are P and a
        network."""
        super().__init__()
        self.device, earlier = start.base.device, start.earlier
        self.changes = list(changes.values())
        self.names = sorted([*changes, *(concept.name for concept in earlier)])
        self.new = [self.names.index(name) for name in changes]
        self.old = [self.names.index(concept.name) for concept in earlier]
        self.target_modules = list(self.changes[0])
        width = next(iter(start.base.target_modules().values())).in_features  # d, of the text features
        self.register_buffer("joint", torch.tensor(False))  # whether step 2 has begun
        self.register_buffer("embeddings", self._stacked([one.extra[EMBEDDING] for one in earlier], width))
        for number, (target, own) in enumerate(self.changes[0].items()):
            for key, factor in (("up", own.up), ("down", own.down)):
                stored = [concept.deltas[target].get_parameter(key) for concept in earlier]
                self.register_buffer(f"{key}_{number}", self._stacked(stored, *factor.shape))
        if proxies:
            self.network = ProxyDecoder(width, torch.Generator().manual_seed(SEED), self.device)
            self.proxies = nn.Parameter(torch.zeros(len(changes), width, device=self.device))
            stack = self._stacked([concept.extra[PROXY] for concept in earlier], width)
            self.register_buffer("earlier_proxies", stack, persistent=False)

    def _stacked(self, stored: Sequence[Tensor], *shape: int) -> Tensor:
        """(G, *shape): the earlier concepts' tensors at their places, zero at those of the new ones."""
        stack = torch.zeros(len(self.names), *shape, device=self.device)
        for place, tensor in zip(self.old, stored, strict=True):
            stack[place] = tensor.detach().to(stack)
        return stack

    @torch.no_grad()
    def start_joint_stage(self, embeddings: Sequence[Tensor]) -> None:
        """Begin step 2: C_g of the run's concepts and what step 1 gave are kept for the others; P_g starts at C_g."""
        for place, embedding, changes in zip(self.new, embeddings, self.changes, strict=True):
            self.embeddings[place] = embedding.to(self.embeddings)
            for target, ups, downs in self.factors():
                ups[place], downs[place] = changes[target].up, changes[target].down
        if hasattr(self, "proxies"):
            self.proxies.copy_(self.embeddings[self.new])
        self.joint.fill_(True)

    def factors(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of each target module its name, A (G, D1, r) and B (G, r, D2) as others see them."""
        for number, target in enumerate(self.target_modules):
            yield target, self.get_buffer(f"up_{number}"), self.get_buffer(f"down_{number}")

    def decode(self, text: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """P' and S (prompts, G, d) under the prompts (prompts, length, d)."""
        proxies = self._with_new(self.earlier_proxies, list(self.proxies))
        decoded: Tensor
        decoded, states = self.network(proxies, self.embeddings, text, mask)
        return decoded, states

    def mix(self, weights: Tensor, live: bool) -> None:
        """Give each concept of the run its mixture: sum_i beta_i A_i B_i with beta (run, G).

        Args:
            live: the run's concepts as they are now and in the graph, so that each trains the others' factors too.
        """
        for target, ups, downs in self.factors():
            if live:
                ups = self._with_new(ups, [changes[target].up for changes in self.changes])
                downs = self._with_new(downs, [changes[target].down for changes in self.changes])
            for own, changes in zip(weights, self.changes, strict=True):
                changes[target].mixture = mixture(own, ups, downs)

    def _with_new(self, stack: Tensor, new: Sequence[Tensor]) -> Tensor:
        """The stack (G, ...) with other tensors for the run's concepts."""
        return stack.index_copy(0, torch.tensor(self.new, device=stack.device), torch.stack(list(new)))
