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
class Line:
    """One prompt as ids, with the vectors to write and where: `places` are positions among `ids`; `words` counts the
    ids between start mark and padding; `first` is where the start mark stands."""

    ids: list[int]
    places: list[int]
    vectors: list[Tensor]
    words: int = 0
    first: int = 0


class PromptEncoder:
    """A CLIP tokenizer and its text encoder; other kinds of text encoder are subclasses, in `mnemon.models.encoders`.

    Attributes:
        name: the pipeline's name of the encoder ("text_encoder").
        width: length of one embedding vector.
        length: tokens of an encoded prompt, its start and end marks included.
        start, end: ids of the marks before and after the words.
        pad: the id that fills the rest.
        stand_in: the id that holds a concept's places.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.model = model
        self._vectors: dict[str, Tensor] = {}
        self._ids = lru_cache(REMEMBERED)(partial(_ids, tokenizer))
        self._begin()

    def _begin(self) -> None:
        """Settle the length and the marks."""
        tokenizer = self.tokenizer
        self.length = min(int(tokenizer.model_max_length), int(self.model.config.max_position_embeddings))
        self.start, self.end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        self.pad, self.stand_in = tokenizer.pad_token_id, tokenizer.bos_token_id

    @property
    def table(self) -> nn.Embedding:
        """The embedding table; it is never resized or written to."""
        return self.model.get_input_embeddings()

    @property
    def width(self) -> int:
        return self.table.embedding_dim

    def set_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Replace the known concepts: name -> (vectors, width), in the order they stand in the prompt, or
        (layers, vectors, width)."""
        for name, value in vectors.items():
            if value.ndim not in (2, 3) or value.shape[-1] != self.width or not value.numel():
                raise MnemonError(
                    f"The token <{name}> has vectors of shape {tuple(value.shape)} for the {self.name}, which reads "
                    f"(vectors, {self.width}): the concept was learned on another base."
                )
        self._vectors = dict(vectors)

    def is_layerwise(self, prompt: str) -> bool:
        """Whether the prompt names a concept that has vectors of its own for each layer."""
        return any(name in self._vectors and self._vectors[name].ndim == 3 for name in concepts_in(prompt))

    def words(self, prompt: str) -> int:
        """How many tokens the prompt has without start mark and padding, but with its end mark."""
        return self._line(prompt, 0).words

    def knows(self, word: str) -> bool:
        """Whether the word is one token."""
        return len(self._ids(word)) == 1

    def __call__(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Any:
        """The model's output for the prompts, hidden states included; differentiable in the concepts' vectors.

        Args:
            layers: for each prompt the layer whose vectors layer-wise concepts take.

        Raises:
            MnemonError: a prompt names an unknown concept, or is so long that a concept would be cut off.

        Warns:
            UserWarning: a prompt is longer than the encoder reads; the rest of its words is ignored.
        """
        lines = [self._line(prompt, layer) for prompt, layer in zip(prompts, layers or [0] * len(prompts), strict=True)]
        self._fill(lines)
        ids = torch.tensor([line.ids for line in lines], device=self.table.weight.device)
        vectors = [vector for line in lines for vector in line.vectors]
        if not vectors:
            return self._run(ids, lines)
        spliced = torch.zeros_like(ids, dtype=torch.bool)
        for row, line in enumerate(lines):
            spliced[row, line.places] = True
        handle = self.table.register_forward_hook(_splice(spliced, torch.stack(vectors)))
        try:
            return self._run(ids, lines)
        finally:
            handle.remove()

    def _run(self, ids: Tensor, lines: Sequence[Line]) -> Any:
        """The model's output for ids (batch, length). CLIP hears the filling too: it was trained so."""
        return self.model(ids, output_hidden_states=True)

    def statistics(self) -> tuple[int, float, float]:
        """Width, and mean and standard deviation of the table's entries."""
        weight = self.table.weight.float()
        return self.width, weight.mean().item(), weight.std().item()

    def word_embedding(self, word: str) -> Tensor:
        """The mean embedding (width,) of the word's tokens, in fp32.

        Raises:
            MnemonError: the word is empty.
        """
        return self.phrase_vectors(word).mean(dim=0)

    def phrase_vectors(self, phrase: str) -> Tensor:
        """The embeddings (tokens, width) of the phrase's tokens as they stand within a sentence, in fp32.

        Raises:
            MnemonError: the phrase is empty.
        """
        ids = self._ids(phrase)
        if not ids:
            raise MnemonError("An empty word has no embedding: give a class noun such as 'dog', or none at all.")
        return self.table.weight[torch.tensor(ids, device=self.table.weight.device)].float()

    def _line(self, prompt: str, layer: int) -> Line:
        line = Line(list(self.start), [], [])
        for words, name in self._pieces(prompt):
            line.ids += self._ids(words)
            if name is not None:
                vectors = self._known(name, prompt)
                vectors = vectors[layer] if vectors.ndim == 3 else vectors
                line.places += range(len(line.ids), len(line.ids) + len(vectors))
                line.vectors += vectors.unbind()
                line.ids += [self.stand_in] * len(vectors)
        self._cut(line, prompt)
        line.ids += self.end
        line.words = len(line.ids) - len(self.start)
        return line

    def _pieces(self, prompt: str) -> Iterator[tuple[str, str | None]]:
        """What is said, cut at the concepts: (words before, name), and at last (words after, None)."""
        return _parts(prompt)

    def _fill(self, lines: Sequence[Line]) -> None:
        """Bring the lines to one length."""
        for line in lines:
            line.ids += [self.pad] * (self.length - len(line.ids))

    def _known(self, name: str, prompt: str) -> Tensor:
        if name not in self._vectors:
            known = ", ".join(f"<{known}>" for known in sorted(self._vectors)) or "none yet"
            raise MnemonError(f"The prompt '{prompt}' names <{name}>, which is not known. Known concepts: {known}.")
        return self._vectors[name]

    def _cut(self, line: Line, prompt: str) -> None:
        """Leave room for the end mark: words are dropped with a warning, a concept never."""
        room, marks = self.length - len(self.end), len(self.start)
        if len(line.ids) <= room:
            return
        message = f"The prompt '{prompt}' has {len(line.ids) - marks} tokens, this base reads {room - marks}"
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
