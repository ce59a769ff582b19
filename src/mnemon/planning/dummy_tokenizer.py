"""A tokenizer for bases of which only configs are known: the length of a prompt matters for memory, not its content."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

TEMPLATE_TOKENS = 6
"""Tokens that a chat template puts before a prompt, and after it: about as many as the published ones."""


class DummyTokenizer:
    """One token per word, always the same."""

    bos_token = None
    bos_token_id, eos_token_id, pad_token_id = 0, 2, 1
    model_max_length = 10**6
    padding_side = "right"

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=[3] * len(text.split()))

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join("word" for _ in ids)

    def apply_chat_template(self, messages: Sequence[Any], **_: Any) -> str:
        """The last message between the template's prefix and suffix."""
        content = messages[-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        return "word " * TEMPLATE_TOKENS + text + " word" * TEMPLATE_TOKENS
