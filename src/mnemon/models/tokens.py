"""Prompts into text encoders, with concept tokens spliced into the embedding look-up.

A concept token `<rex>` is known by its name only. It never enters the tokenizer or the embedding table: the prompt is
split at the token, placeholder ids hold its positions, and a hook that lives for one forward pass writes the concept's
embeddings over theirs (textual inversion, arXiv 2208.01618). The placeholder is BOS, so every id lies in the table and
below EOS. That matters for encoders whose config says `eos_token_id` 2 (all published ones): they pool at the largest
id, and an id added to the table would be taken for EOS.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.tokenized_prompt import Piece, TokenizedPrompt, note_weights, weighted, weights_of
from mnemon.models.weighted_prompt import WeightedPrompt

TOKEN = re.compile(r"<(\w[\w -]*)>")
"""A concept token in a prompt; CLIP's special tokens such as `<|endoftext|>` are none."""
CACHED_TEXTS = 1024
"""Pieces of text whose ids an encoder caches: training has the same few prompts at every step."""


class PromptEncoder:
    """A CLIP tokenizer and its text encoder; other kinds of text encoder are subclasses, in `mnemon.models.encoders`.

    Attributes:
        name: the pipeline's name of the encoder ("text_encoder").
        width: length of one embedding vector.
        length: tokens of an encoded prompt, BOS and EOS included.
        prefix, suffix: ids before and after a prompt's tokens: BOS and EOS.
        pad_id: of padding.
        placeholder_id: at the positions of concept embeddings.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.model = model
        self._vectors: dict[str, Tensor] = {}
        self._ids = lru_cache(CACHED_TEXTS)(partial(_ids, tokenizer))
        self._set_special_ids()

    def _set_special_ids(self) -> None:
        """Set length, prefix, suffix and the special ids."""
        tokenizer = self.tokenizer
        self.length = min(int(tokenizer.model_max_length), int(self.model.config.max_position_embeddings))
        self.prefix, self.suffix = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        self.pad_id, self.placeholder_id = tokenizer.pad_token_id, tokenizer.bos_token_id

    @property
    def fixed_first_token(self) -> bool:
        """Whether the first position is the same token for every prompt: BOS, or the first of a chat template."""
        return bool(self.prefix)

    @property
    def table(self) -> nn.Embedding:
        """The embedding table; it is never resized or written to."""
        return self.model.get_input_embeddings()

    @property
    def width(self) -> int:
        return self.table.embedding_dim

    def set_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Replace the concepts: name -> (vectors, width), in the order of their positions, or (layers, vectors, width).

        Raises:
            MnemonError: a concept's embeddings have another width.
        """
        for name, value in vectors.items():
            if value.ndim not in (2, 3) or value.shape[-1] != self.width or not value.numel():
                raise MnemonError(
                    f"The token <{name}> has vectors of shape {tuple(value.shape)} for the {self.name}, which reads "
                    f"(vectors, {self.width}): the concept was learned on another base."
                )
        self._vectors = dict(vectors)

    def is_layerwise(self, prompt: str) -> bool:
        """Whether the prompt names a concept with embeddings for each layer."""
        return any(name in self._vectors and self._vectors[name].ndim == 3 for name in concepts_in(prompt))

    def num_tokens(self, prompt: str) -> int:
        """The tokens of the prompt without BOS and padding, but with EOS."""
        return self._tokenize(prompt, 0).length

    def is_single_token(self, word: str) -> bool:
        return len(self._ids(word)) == 1

    def __call__(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Any:
        """The model's output for the prompts, hidden states included; differentiable in the concepts' embeddings.

        The features z of a token of weight w (`WeightedPrompt`) become e + w (z - e), e the empty prompt's at the same
        position, as in ComfyUI and compel; pooled features stay as they are.

        Args:
            layers: for each prompt the layer whose embeddings layer-wise concepts take.

        Raises:
            MnemonError: a prompt names an unknown concept, or is so long that a concept would be cut off.

        Warns:
            UserWarning: a prompt is longer than the encoder reads; the rest of it is ignored.
        """
        tokenized = [
            self._tokenize(prompt, layer) for prompt, layer in zip(prompts, layers or [0] * len(prompts), strict=True)
        ]
        output = self._run(tokenized)
        if any(prompt.weights for prompt in tokenized):
            empty = self._tokenize("", 0)
            of_empty = self._run([empty])
            reweigh = partial(weighted, weights_of(tokenized), self._places(tokenized, empty))
            output = self._map_states(output, of_empty, reweigh)
        return output

    def _run(self, tokenized: Sequence[TokenizedPrompt]) -> Any:
        self._pad(tokenized)
        ids = torch.tensor([prompt.ids for prompt in tokenized], device=self.table.weight.device)
        vectors = [vector for prompt in tokenized for vector in prompt.vectors]
        if not vectors:
            return self._encode(ids, tokenized)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, prompt in enumerate(tokenized):
            mask[row, prompt.positions] = True
        handle = self.table.register_forward_hook(_splice(mask, torch.stack(vectors)))
        try:
            return self._encode(ids, tokenized)
        finally:
            handle.remove()

    def _encode(self, ids: Tensor, prompts: Sequence[TokenizedPrompt]) -> Any:
        """The model's output for ids (batch, length). CLIP attends to padding too, as in training."""
        return self.model(ids, output_hidden_states=True)

    def _map_states(self, output: Any, empty: Any, function: Callable[[Tensor, Tensor], Tensor]) -> Any:
        """The output with `function` of its hidden states and those of the empty prompt in their place."""
        changed: dict[str, Any] = {"last_hidden_state": function(output.last_hidden_state, empty.last_hidden_state)}
        if output.get("hidden_states") is not None:
            changed["hidden_states"] = tuple(map(function, output.hidden_states, empty.hidden_states))
        return type(output)(**{**output, **changed})

    def _places(self, tokenized: Sequence[TokenizedPrompt], empty: TokenizedPrompt) -> Tensor:
        """For each position of the prompts that of the empty prompt, (batch, length); beyond its end its last."""
        length = len(tokenized[0].ids)
        starts = torch.tensor([prompt.start for prompt in tokenized])[:, None]
        return (torch.arange(length) - starts + empty.start).clamp(0, self._last(empty))

    def _last(self, prompt: TokenizedPrompt) -> int:
        """The last position that says something; CLIP's and T5's padding does."""
        return len(prompt.ids) - 1

    def statistics(self) -> tuple[int, float, float]:
        """Width, and mean and standard deviation of the table's entries."""
        weight = self.table.weight.float()
        return self.width, weight.mean().item(), weight.std().item()

    def phrase_vectors(self, phrase: str) -> Tensor:
        """The embeddings (tokens, width) of the phrase's tokens as they stand within a sentence, in fp32.

        Raises:
            MnemonError: the phrase is empty.
        """
        ids = self._ids(phrase)
        if not ids:
            raise MnemonError("An empty word has no embedding: give a class noun such as 'dog', or none at all.")
        return self.table.weight[torch.tensor(ids, device=self.table.weight.device)].float()

    def _tokenize(self, prompt: str, layer: int) -> TokenizedPrompt:
        tokenized = TokenizedPrompt(list(self.prefix), [], [])
        for text, start, name, place in self._pieces(prompt):
            if isinstance(prompt, WeightedPrompt):
                note_weights(tokenized, prompt, [start + end - 1 for end in self._ends(text)])
            tokenized.ids += self._ids(text)
            if name is not None:
                vectors = self._vectors_of(name, prompt)
                vectors = vectors[layer] if vectors.ndim == 3 else vectors
                note_weights(tokenized, prompt, [place] * len(vectors))
                tokenized.positions += range(len(tokenized.ids), len(tokenized.ids) + len(vectors))
                tokenized.vectors += vectors.unbind()
                tokenized.ids += [self.placeholder_id] * len(vectors)
        self._truncate(tokenized, prompt)
        tokenized.ids += self.suffix
        tokenized.length = len(tokenized.ids) - len(self.prefix)
        return tokenized

    def _pieces(self, prompt: str) -> Iterator[Piece]:
        """The prompt split at its concept tokens."""
        end = 0
        for match in TOKEN.finditer(prompt):
            yield Piece(prompt[end : match.start()], end, match.group(1).lower(), match.start())
            end = match.end()
        yield Piece(prompt[end:], end)

    def _ends(self, text: str) -> list[int]:
        """Where in the text each of its tokens ends.

        Raises:
            MnemonError: the tokenizer cannot say it.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise MnemonError(
                f"The tokenizer of the {self.name} does not say which word a token belongs to, so words cannot have "
                "weights: leave out (word:1.3)."
            )
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [end for _, end in read.offset_mapping]

    def _pad(self, prompts: Sequence[TokenizedPrompt]) -> None:
        """Bring the prompts to one length."""
        for prompt in prompts:
            prompt.ids += [self.pad_id] * (self.length - len(prompt.ids))

    def _vectors_of(self, name: str, prompt: str) -> Tensor:
        if name not in self._vectors:
            known = ", ".join(f"<{known}>" for known in sorted(self._vectors)) or "none yet"
            raise MnemonError(f"The prompt '{prompt}' names <{name}>, which is not known. Known concepts: {known}.")
        return self._vectors[name]

    def _truncate(self, tokenized: TokenizedPrompt, prompt: str) -> None:
        """Leave room for EOS: words are dropped with a warning, a concept never."""
        room, prefix = self.length - len(self.suffix), len(self.prefix)
        if len(tokenized.ids) <= room:
            return
        message = f"The prompt '{prompt}' has {len(tokenized.ids) - prefix} tokens, this base reads {room - prefix}"
        if tokenized.positions and tokenized.positions[-1] >= room:
            raise MnemonError(f"{message}, and a concept would be cut off: shorten it or move the concept forward.")
        ignored = self.tokenizer.decode(tokenized.ids[room:])
        warnings.warn(f"{message}: '{ignored}' is ignored.", UserWarning, stacklevel=2)
        del tokenized.ids[room:]
        tokenized.weights = {place: weight for place, weight in tokenized.weights.items() if place < room}


def concepts_in(prompt: str) -> list[str]:
    """The names of the concept tokens in a prompt, in order, each once."""
    return list(dict.fromkeys(match.lower() for match in TOKEN.findall(prompt)))


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The ids of a text's tokens, without special ones around them."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _splice(mask: Tensor, vectors: Tensor) -> Any:
    """A forward hook that writes `vectors` (n, width) over the n embeddings where `mask` (batch, length) is true."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.masked_scatter(mask[..., None], vectors.to(output))

    return hook
