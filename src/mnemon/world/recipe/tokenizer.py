"""A CLIP tokenizer whose vocabulary is the world's: every word of a caption is one token."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from mnemon.world.captions import vocabulary

LENGTH = 24  # tokens a prompt, start and end included
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learns byte-pair merges until every word is one token; letters and digits stay, so any prompt can be encoded."""
    words = list(vocabulary())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789,.'-")
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(words, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    symbols = set(alphabet) | {f"{letter}</w>" for letter in alphabet} | set(learned["vocab"])
    vocab = {symbol: number for number, symbol in enumerate([*sorted(symbols), START, END])}
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split()) for merge in learned["merges"]]
    result = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH, pad_token=END)
    result.save_pretrained(folder)
    return result
