"""Prompts into text encoders, with concept tokens spliced into the embedding look-up.

A concept token `<rex>` is known by its name only. It never enters the tokenizer or the embedding table: the prompt is
cut at the token, a stand-in id holds each place, and a hook that lives for one forward pass writes the concept's
vectors over the stand-ins' embeddings. The stand-in is the start mark, so every id the text encoder sees lies in its
table and below the end mark. That matters for encoders whose config says `eos_token_id` 2 (all published ones): they
take the pooled vector at the largest id, and an id added to the table would be taken for the end of the text.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError

TOKEN = re.compile(r"<(\w[\w -]*)>")
"""A concept token in a prompt; CLIP's own marks such as `<|endoftext|>` are none."""
REMEMBERED = 1024
"""Pieces of text whose ids an encoder keeps: training says the same few prompts at every step."""


@dataclass
class _Line:
    """One prompt as ids, with the vectors to write and where: `places` are positions among `ids`."""

    ids: list[int]
    places: list[int]
    vectors: list[Tensor]


class PromptEncoder:
    """A CLIP tokenizer and its text encoder.

    Attributes:
        name: the pipeline's name of the encoder ("text_encoder").
        width: length of one embedding vector.
        length: tokens of an encoded prompt, its start and end marks included.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.model = model
        self.length = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
        self._vectors: dict[str, Tensor] = {}
        self._ids = lru_cache(REMEMBERED)(partial(_ids, tokenizer))

    @property
    def table(self) -> nn.Embedding:
        """The embedding table; it is never resized or written to."""
        return self.model.get_input_embeddings()

    @property
    def width(self) -> int:
        return self.table.embedding_dim

    def set_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Replace the known concepts: name -> (vectors, width), in the order they stand in the prompt."""
        for name, value in vectors.items():
            if value.ndim != 2 or value.shape[1] != self.width or not len(value):
                raise MnemonError(
                    f"The token <{name}> has vectors of shape {tuple(value.shape)} for the {self.name}, which reads "
                    f"(vectors, {self.width}): the concept was learned on another base."
                )
        self._vectors = dict(vectors)

    def __call__(self, prompts: Sequence[str]) -> Any:
        """The model's output for the prompts, hidden states included; differentiable in the concepts' vectors.

        Raises:
            MnemonError: a prompt names an unknown concept, or is so long that a concept would be cut off.

        Warns:
            UserWarning: a prompt is longer than the encoder reads; the rest of its words is ignored.
        """
        lines = [self._line(prompt) for prompt in prompts]
        ids = torch.tensor([line.ids for line in lines], device=self.table.weight.device)
        vectors = [vector for line in lines for vector in line.vectors]
        if not vectors:
            return self.model(ids, output_hidden_states=True)
        spliced = torch.zeros_like(ids, dtype=torch.bool)
        for row, line in enumerate(lines):
            spliced[row, line.places] = True
        handle = self.table.register_forward_hook(_splice(spliced, torch.stack(vectors)))
        try:
            return self.model(ids, output_hidden_states=True)
        finally:
            handle.remove()

    def statistics(self) -> tuple[int, float, float]:
        """Width, and mean and standard deviation of the table's entries."""
        weight = self.table.weight.float()
        return self.width, weight.mean().item(), weight.std().item()

    def word_vector(self, word: str) -> Tensor:
        """The mean embedding (width,) of the word's tokens, in fp32.

        Raises:
            MnemonError: the word is empty.
        """
        ids = self._ids(word)
        if not ids:
            raise MnemonError("An empty word has no embedding: give a class noun such as 'dog', or none at all.")
        return self.table.weight[torch.tensor(ids, device=self.table.weight.device)].float().mean(dim=0)

    def _line(self, prompt: str) -> _Line:
        start, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        line = _Line([start], [], [])
        for words, name in _parts(prompt):
            line.ids += self._ids(words)
            if name is not None:
                vectors = self._known(name, prompt)
                line.places += range(len(line.ids), len(line.ids) + len(vectors))
                line.vectors += vectors.unbind()
                line.ids += [start] * len(vectors)
        self._cut(line, prompt)
        line.ids.append(end)
        line.ids += [pad] * (self.length - len(line.ids))
        return line

    def _known(self, name: str, prompt: str) -> Tensor:
        if name not in self._vectors:
            known = ", ".join(f"<{known}>" for known in sorted(self._vectors)) or "none yet"
            raise MnemonError(f"The prompt '{prompt}' names <{name}>, which is not known. Known concepts: {known}.")
        return self._vectors[name]

    def _cut(self, line: _Line, prompt: str) -> None:
        """Leave room for the end mark: words are dropped with a warning, a concept never."""
        room = self.length - 1
        if len(line.ids) <= room:
            return
        message = f"The prompt '{prompt}' has {len(line.ids) - 1} tokens, this base reads {room - 1}"
        if line.places and line.places[-1] >= room:
            raise MnemonError(f"{message}, and a concept would be cut off: shorten it or move the concept forward.")
        ignored = self.tokenizer.decode(line.ids[room:])
        warnings.warn(f"{message}: '{ignored}' is ignored.", UserWarning, stacklevel=2)
        del line.ids[room:]


def concepts_in(prompt: str) -> list[str]:
    """The names of the concept tokens in a prompt, in order, each once."""
    return list(dict.fromkeys(match.lower() for match in TOKEN.findall(prompt)))


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The ids of a text's words, without marks around them."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _parts(prompt: str) -> Iterator[tuple[str, str | None]]:
    """The prompt cut at its concept tokens: (words before, name), and at last (words after, None)."""
    at = 0
    for match in TOKEN.finditer(prompt):
        yield prompt[at : match.start()], match.group(1).lower()
        at = match.end()
    yield prompt[at:], None


def _splice(places: Tensor, vectors: Tensor) -> Any:
    """A forward hook that writes `vectors` (n, width) over the n embeddings marked in `places` (batch, length)."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.masked_scatter(places[..., None], vectors.to(output))

    return hook
