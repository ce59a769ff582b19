"""The proxy decoder of FL2T: a small network for the relevance of concepts to one another, given a prompt.

FL2T (Kaushik et al., WACV 2026, arXiv 2601.01963), section 5 and Eqs 4 and 5. The authors publish no code. The paper
says decoder, MLP, contrastive term and inner products; sizes, temperatures, the way past the MLP and the bounded
relevance are this project's.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemon.methods import parts

HEADS = 8
SMALL = 1e-2  # of the MLP's last layer, as a share of what the others start with
LambdaForm = Literal["softmax", "cosine", "sigmoid", "inner"]


class ProxyDecoder(nn.Module):
    """The set-invariant decoder and the MLP:

        P' = decoder(P; text)            self-attention among the G proxies, then cross-attention to the prompt
        S_i = P_i + MLP([C_i ; P'_i])    linear(2 d, 8/3 d) - ReLU - linear(8/3 d, d), the last layer small at first

    Untrained, S_i is P_i: a stored proxy means the same to the network of a later run, which starts anew. The decoder
    is a layer of `torch.nn.TransformerDecoder` without positional encoding: permuting the concepts permutes P' and S
    and changes nothing else. At d = 768 it has 14,173,184 weights.
    """

    def __init__(self, width: int, generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        heads = math.gcd(HEADS, width)
        self.decoder = nn.TransformerDecoderLayer(width, heads, 4 * width, 0.0, batch_first=True, device="meta")
        self.first = nn.Linear(2 * width, 8 * width // 3, device="meta")
        self.last = nn.Linear(8 * width // 3, width, device="meta")
        self.to_empty(device=device)
        _start(self, generator)
        with torch.no_grad():
            self.last.weight.mul_(SMALL)

    def forward(
        self, proxies: Tensor, embeddings: Tensor, text: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """P' and S (prompts, concepts, d) of P and C (concepts, d) under prompts (prompts, length, d); `mask`
        (prompts, length) is false at padding."""
        start = proxies.expand(len(text), -1, -1)
        padding = None if mask is None else ~mask
        decoded: Tensor = self.decoder(start, text, memory_key_padding_mask=padding)
        both = torch.cat([embeddings.expand(len(text), -1, -1), decoded], -1)
        return decoded, start + self.last(functional.relu(self.first(both)))


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


def _start(network: nn.Module, generator: torch.Generator) -> None:
    """Matrices uniform within sqrt(6 / (fan-in + fan-out)) (Glorot & Bengio, 2010), biases zero, norms one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
            if parameter.ndim == 2:
                bound = math.sqrt(6 / sum(parameter.shape))
                uniform = parts.sample_uniform(tuple(parameter.shape), generator, parameter.device)
                parameter.copy_(bound * (uniform * 2 - 1))
        for norm in (module for module in network.modules() if isinstance(module, nn.LayerNorm)):
            norm.weight.fill_(1.0)
