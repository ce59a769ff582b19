"""Exact attribute accuracy on the built-in world: whether an image shows what its prompt names, by a classifier.

The world's prompts name nouns, colours, patterns and backgrounds of fixed lists, and the classifier's heads know the
same lists (`WorldEncoders.attributes`); so a prompt can be checked word by word, which no cosine can.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mnemon.world.attributes import ATTRIBUTES


def named_attributes(prompt: str) -> dict[str, str]:
    """What a prompt of the world about one object names: {"noun": "mug", "colour": "red", "background": "at night"}."""
    text = f" {prompt} "
    named = {kind: [words for words in classes if f" {words} " in text] for kind, classes in ATTRIBUTES.items()}
    return {kind: words[0] for kind, words in named.items() if len(words) == 1}


def attribute_accuracy(logits: Mapping[str, Tensor], prompts: Sequence[str]) -> dict[str, float]:
    """For each attribute, the share of the images whose prompt names it that show it; 0..1, higher is better.

    Args:
        logits: attribute -> (n, classes), of image i at row i.
        prompts: of image i at place i, in words.

    Returns:
        Only the attributes that a prompt names and a head knows.
    """
    named = [named_attributes(prompt) for prompt in prompts]
    shares = {}
    for kind in (kind for kind in ATTRIBUTES if kind in logits):
        seen = [ATTRIBUTES[kind][int(place)] for place in logits[kind].argmax(1)]
        hits = [said[kind] == shown for said, shown in zip(named, seen, strict=True) if kind in said]
        if hits:
            shares[kind] = sum(hits) / len(hits)
    return shares
