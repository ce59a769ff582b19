"""Text encoders beside CLIP: T5, and language models that read the prompt as a chat message.

Concept tokens are spliced into their embedding look-ups exactly as into CLIP's.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnemon.models.tokenized_prompt import Piece, TokenizedPrompt
from mnemon.models.tokens import PromptEncoder

PLACEHOLDER = "\N{WHITE SMILING FACE}"
"""In place of the prompt when a chat template is asked for its prefix and suffix."""


class T5Encoder(PromptEncoder):
    """T5's encoder (Raffel et al., arXiv 1910.10683). No BOS; padding is attended to, as in training.

    Args:
        length: tokens of an encoded prompt, EOS included.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any, length: int) -> None:
        self.length = length
        super().__init__(name, tokenizer, model)

    def _set_special_ids(self) -> None:
        self.prefix, self.suffix = [], [self.tokenizer.eos_token_id]
        self.pad_id = self.placeholder_id = self.tokenizer.pad_token_id

    @property
    def table(self) -> nn.Embedding:
        return self.model.encoder.get_input_embeddings()  # shared with the model's own, which is not called

    def _encode(self, ids: Tensor, prompts: Sequence[TokenizedPrompt]) -> Any:
        return self.model(ids)


class TextEncoderOutput(NamedTuple):
    """Of a language model."""

    hidden_states: Sequence[Tensor]
    """After the embedding and after each layer, (batch, length, width) each."""
    attention_mask: Tensor
    """(batch, length): false at padding."""


class LanguageEncoder(PromptEncoder):
    """A language model whose hidden states encode the prompt as a chat message.

    A byte-level vocabulary writes " dog" as one token with its space, so a concept takes the space before it along.

    Args:
        length: the most tokens of a prompt, the chat template's included; the rest is ignored.
        affixes: what the chat template puts before and after the prompt.
        pad_to_length: whether every prompt is padded to `length`, for denoisers that attend to padding; otherwise
            to the longest.
    """

    def __init__(
        self, name: str, tokenizer: Any, model: Any, length: int, affixes: tuple[str, str], pad_to_length: bool
    ) -> None:
        self.length, self.affixes, self.pad_to_length = length, affixes, pad_to_length
        super().__init__(name, tokenizer, model)

    def _set_special_ids(self) -> None:
        bos = self.tokenizer.bos_token
        in_template = bos is not None and self.affixes[0].startswith(bos)
        self.prefix, self.suffix = [] if in_template else list(self.tokenizer("").input_ids), []
        self.pad_id, self.placeholder_id = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id

    @property
    def fixed_first_token(self) -> bool:
        return self.tokenizer.padding_side == "right" and bool(self.prefix or self.affixes[0])

    def is_single_token(self, word: str) -> bool:
        return super().is_single_token(f" {word}")

    def phrase_vectors(self, phrase: str) -> Tensor:
        return super().phrase_vectors(f" {phrase}" if phrase else phrase)

    def _pieces(self, prompt: str) -> Iterator[Piece]:
        before, after = self.affixes
        for piece in super()._pieces(prompt):
            text, start = before + piece.text, piece.start - len(before)
            text = text + after if piece.concept is None else text.removesuffix(" ")
            yield piece._replace(text=text, start=start)
            before = ""

    def _map_states(
        self, output: TextEncoderOutput, empty: TextEncoderOutput, function: Callable[[Tensor, Tensor], Tensor]
    ) -> TextEncoderOutput:
        return output._replace(hidden_states=list(map(function, output.hidden_states, empty.hidden_states)))

    def _last(self, prompt: TokenizedPrompt) -> int:
        return prompt.start + len(self.prefix) + prompt.length - 1

    def _pad(self, prompts: Sequence[TokenizedPrompt]) -> None:
        length = self.length if self.pad_to_length else max(len(prompt.ids) for prompt in prompts)
        for prompt in prompts:
            padding = [self.pad_id] * (length - len(prompt.ids))
            left = self.tokenizer.padding_side == "left"
            prompt.ids = padding + prompt.ids if left else prompt.ids + padding
            prompt.start = len(padding) if left else 0
            prompt.positions = [position + prompt.start for position in prompt.positions]

    def _encode(self, ids: Tensor, prompts: Sequence[TokenizedPrompt]) -> TextEncoderOutput:
        position = torch.arange(ids.shape[1], device=ids.device)
        start = torch.tensor([prompt.start for prompt in prompts], device=ids.device)[:, None]
        length = torch.tensor([len(self.prefix) + prompt.length for prompt in prompts], device=ids.device)[:, None]
        mask = (position >= start) & (position < start + length)
        body = getattr(self.model, "model", self.model)  # without the language-modelling head
        output = body(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False)
        return TextEncoderOutput(output.hidden_states, mask)


def chat_affixes(tokenizer: Any, system: str | None = None, **options: Any) -> tuple[str, str]:
    """What a tokenizer's or processor's chat template puts before and after the user's message.

    Args:
        system: a system message to come first; message contents are then lists of parts, as processors want them.
        options: for the template.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": PLACEHOLDER}]
    if system is not None:
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("system", system), ("user", PLACEHOLDER))
        ]
    before, _, after = tokenizer.apply_chat_template(messages, tokenize=False, **options).partition(PLACEHOLDER)
    return before, after


def unpad(hidden_states: Tensor, mask: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """The masked positions of hidden states (batch, length, width) moved to the front, without the first `skip`.

    Returns:
        Hidden states (batch, longest, width) with zeros where a row has no more, and their mask (batch, longest).
    """
    rows = [states[own][skip:] for states, own in zip(hidden_states, mask, strict=True)]
    lengths = torch.tensor([len(row) for row in rows], device=hidden_states.device)
    new_mask = torch.arange(max(map(len, rows)), device=hidden_states.device) < lengths[:, None]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), new_mask
