"""Text encoders beside CLIP: T5, and language models that read the prompt within a chat.

Concept tokens are spliced into their embedding look-ups exactly as into CLIP's.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnemon.models.tokens import Line, PromptEncoder

MARK = "\N{WHITE SMILING FACE}"
"""Stands for the prompt when a chat template is asked what it puts around one."""


class T5Encoder(PromptEncoder):
    """T5's encoder (Raffel et al., arXiv 1910.10683). No mark at the start; the filled places are heard, as trained.

    Args:
        length: tokens of an encoded prompt, the end mark included.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any, length: int) -> None:
        self.length = length
        super().__init__(name, tokenizer, model)

    def _begin(self) -> None:
        self.start, self.end = [], [self.tokenizer.eos_token_id]
        self.pad = self.stand_in = self.tokenizer.pad_token_id

    @property
    def table(self) -> nn.Embedding:
        return self.model.encoder.get_input_embeddings()  # the model's own shares the weight, but is not asked

    def _run(self, ids: Tensor, lines: Sequence[Line]) -> Any:
        return self.model(ids)


class Heard(NamedTuple):
    """What a language model makes of prompts."""

    states: Sequence[Tensor]
    """After the embedding and after each layer, (batch, length, width) each."""
    mask: Tensor
    """(batch, length): false where a line is only filled up."""


class LanguageEncoder(PromptEncoder):
    """A language model that reads the prompt as a message of a chat and is asked for its hidden states.

    A byte-level vocabulary writes " dog" as one token with its space, so a concept takes the space before it along.

    Args:
        length: the most tokens of a prompt, the chat's own words included; the rest of the words is ignored.
        frame: what the chat puts before and after the prompt.
        filled: whether every line is filled up to `length`, for denoisers that hear the filled places too; otherwise
            lines are filled up to the longest.
    """

    def __init__(
        self, name: str, tokenizer: Any, model: Any, length: int, frame: tuple[str, str], filled: bool
    ) -> None:
        self.length, self.frame, self.filled = length, frame, filled
        super().__init__(name, tokenizer, model)

    def _begin(self) -> None:
        bos = self.tokenizer.bos_token
        own = bos is not None and self.frame[0].startswith(bos)
        self.start, self.end = [] if own else list(self.tokenizer("").input_ids), []
        self.pad, self.stand_in = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id

    def knows(self, word: str) -> bool:
        return super().knows(f" {word}")

    def phrase_vectors(self, phrase: str) -> Tensor:
        return super().phrase_vectors(f" {phrase}" if phrase else phrase)

    def _pieces(self, prompt: str) -> Iterator[tuple[str, str | None]]:
        before, after = self.frame
        for words, name in super()._pieces(prompt):
            yield (before + words.removesuffix(" "), name) if name is not None else (before + words + after, None)
            before = ""

    def _fill(self, lines: Sequence[Line]) -> None:
        length = self.length if self.filled else max(len(line.ids) for line in lines)
        for line in lines:
            filling = [self.pad] * (length - len(line.ids))
            left = self.tokenizer.padding_side == "left"
            line.ids = filling + line.ids if left else line.ids + filling
            line.first = len(filling) if left else 0
            line.places = [place + line.first for place in line.places]

    def _run(self, ids: Tensor, lines: Sequence[Line]) -> Heard:
        at = torch.arange(ids.shape[1], device=ids.device)
        first = torch.tensor([line.first for line in lines], device=ids.device)[:, None]
        words = torch.tensor([len(self.start) + line.words for line in lines], device=ids.device)[:, None]
        heard = (at >= first) & (at < first + words)
        body = getattr(self.model, "model", self.model)  # without the head that guesses the next word
        output = body(input_ids=ids, attention_mask=heard.long(), output_hidden_states=True, use_cache=False)
        return Heard(output.hidden_states, heard)


def chat_frame(tokenizer: Any, system: str | None = None, **options: Any) -> tuple[str, str]:
    """What a tokenizer's or processor's chat template puts before and after the user's message.

    Args:
        system: a system message to come first; message contents are then lists of parts, as processors want them.
        options: for the template.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": MARK}]
    if system is not None:
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("system", system), ("user", MARK))
        ]
    before, _, after = tokenizer.apply_chat_template(messages, tokenize=False, **options).partition(MARK)
    return before, after


def squeezed(states: Tensor, mask: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """The masked places of states (batch, length, width) moved to the front, without the first `skip` of each row.

    Returns:
        States (batch, longest, width) with zeros where a row has no more, and their mask (batch, longest).
    """
    rows = [state[heard][skip:] for state, heard in zip(states, mask, strict=True)]
    lengths = torch.tensor([len(row) for row in rows], device=states.device)
    heard = torch.arange(max(map(len, rows)), device=states.device) < lengths[:, None]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), heard
