"""Our prompt methods beside the code of CODA-Prompt (github.com/GT-RIPL/CODA-Prompt, commit 6417d4f), which is fetched
for the run:

    python -m scripts.parity CODA-PROMPT-FOLDER --timm FOLDER-WITH-TIMM-0.6.13

Same weights, same images, in one process: a random vision transformer of six blocks, and random prompts as after three
tasks. Theirs asks for CUDA and imports torchvision, which these parts do not use: `.cuda()` copies here, and the
import is of an empty module. Prints the largest difference of each, and seconds of a training step of CODA-P.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import ViTConfig, ViTModel

from mnemon.classification import Backbone
from mnemon.classification.methods.coda_p import KINDS, CodaP
from mnemon.classification.methods.dualprompt import DualPrompt
from mnemon.classification.methods.l2p import L2pPlus

WIDTH, BLOCKS, HEADS, SIDE, PATCH, TASKS, IMAGES, CLASSES = 64, 6, 4, 32, 8, 3, 16, 10
STEPS = 15
NAMES = {
    "q": "attention.q_proj", "k": "attention.k_proj", "v": "attention.v_proj", "proj": "attention.o_proj",
    "fc1": "mlp.fc1", "fc2": "mlp.fc2", "norm1": "layernorm_before", "norm2": "layernorm_after",
}  # fmt: skip


def imported(folder: Path, timm: Path) -> Any:
    """Their `models.zoo` and `models.vit`."""
    sys.path[:0] = [str(folder), str(timm)]
    for name in ("", ".models", ".transforms", ".transforms.functional", ".datasets", ".ops", ".ops.misc",
                 ".models.feature_extraction", ".datasets.folder"):  # fmt: skip
        sys.modules[f"torchvision{name}"] = MagicMock()
    torch.Tensor.cuda = lambda self, *_, **__: self.clone()  # type: ignore[method-assign]
    from models import vit, zoo  # type: ignore[import-not-found]

    return SimpleNamespace(zoo=zoo, vit=vit)


def ours() -> Backbone:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        image_size=SIDE, patch_size=PATCH, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = ViTModel(config, add_pooling_layer=False)
    for parameter in model.parameters():  # larger than transformers starts them: features of images differ
        parameter.data.normal_(0, 0.1)
    return Backbone(model)


def theirs(code: Any, on: Backbone) -> Any:
    """Their network with the weights of ours."""
    network = code.vit.VisionTransformer(SIDE, PATCH, embed_dim=WIDTH, depth=BLOCKS, num_heads=HEADS).eval()
    own, state = on.model.state_dict(), {}
    state["cls_token"] = own["embeddings.cls_token"]
    state["pos_embed"] = own["embeddings.position_embeddings"]
    for kind in ("weight", "bias"):
        state[f"patch_embed.proj.{kind}"] = own[f"embeddings.patch_embeddings.projection.{kind}"]
        state[f"norm.{kind}"] = own[f"layernorm.{kind}"]
        for block in range(BLOCKS):
            part = {name: own[f"layers.{block}.{place}.{kind}"] for name, place in NAMES.items()}
            state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([part["q"], part["k"], part["v"]])
            state[f"blocks.{block}.attn.proj.{kind}"] = part["proj"]
            for name in ("fc1", "fc2"):
                state[f"blocks.{block}.mlp.{name}.{kind}"] = part[name]
            for name in ("norm1", "norm2"):
                state[f"blocks.{block}.{name}.{kind}"] = part[name]
    network.load_state_dict(state)
    return network.requires_grad_(False)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


def coda(code: Any, on: Backbone, network: Any, images: Tensor, head: Tensor) -> dict[str, float]:
    method = CodaP(components=4, length=8)
    prompt = code.zoo.CodaPrompt(WIDTH, TASKS, [4 * TASKS, 8, 0.0], key_dim=WIDTH)
    prompt.task_count = TASKS - 1
    labels = torch.arange(len(images)) % CLASSES
    letters = dict(zip(KINDS, "pka", strict=True))
    for name in letters.values():
        for block in range(5):
            getattr(prompt, f"e_{name}_{block}").data.normal_()
    rows = {
        f"{kind}.{block}": getattr(prompt, f"e_{letter}_{block}").detach().clone().requires_grad_()
        for kind, letter in letters.items()
        for block in range(5)
    }
    with torch.no_grad():
        queries, asked = on.features(images), network(images)[0][:, 0]

    def own_step() -> Tensor:
        logits = linear(on.features(images, method.prefixes(rows, queries)), head)
        cross_entropy(logits, labels).backward()
        return logits

    def their_step() -> Tensor:
        with torch.no_grad():
            query = network(images)[0][:, 0]
        logits = linear(network(images, prompt=prompt, q=query, train=True)[0][:, 0], head)
        cross_entropy(logits, labels).backward()
        return logits

    logits, expected = own_step(), their_step()
    tested = linear(network(images, prompt=prompt, q=asked, train=False)[0][:, 0], head)
    new = slice(4 * (TASKS - 1), None)
    gradients = [
        difference(rows[f"{kind}.{block}"].grad[new], getattr(prompt, f"e_{letter}_{block}").grad[new])
        for kind, letter in letters.items()
        for block in range(5)
    ]
    pairs = [(_seconds(own_step), _seconds(their_step)) for _ in range(STEPS)]
    seconds = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return {
        "queries": difference(queries, asked),
        "coda-p logits, training": difference(logits, expected),
        "coda-p logits, test": difference(logits, tested),
        "coda-p logits, moved by the prompts": difference(logits, linear(queries, head)),
        "coda-p gradients of the task's rows": max(gradients),
        "coda-p step, seconds, ours": seconds[0],
        "coda-p step, seconds, theirs": seconds[1],
    }


def dualprompt(code: Any, on: Backbone, network: Any, images: Tensor, head: Tensor) -> dict[str, float]:
    method = DualPrompt(shared_length=3, own_length=10)
    prompt = code.zoo.DualPrompt(WIDTH, TASKS, [TASKS, 20, 6], key_dim=WIDTH)
    keys = torch.randn(TASKS, WIDTH)
    tensors = {"key": keys}
    for block in (2, 3, 4):  # ours has one key for all blocks, theirs has one for each
        getattr(prompt, f"e_k_{block}").data.copy_(keys)
        tensors[f"own.{block}"] = getattr(prompt, f"e_p_{block}").data.unflatten(1, (2, 10))
    for block in (0, 1):
        tensors[f"shared.{block}"] = getattr(prompt, f"g_p_{block}").data.unflatten(0, (2, 3))
    queries = on.features(images)
    found = torch.nn.functional.cosine_similarity(queries[:, None], keys[None], dim=-1).argmax(1)
    results = {}
    for place, tasks in (("test", found), ("training", torch.full_like(found, TASKS - 1))):
        own = linear(on.features(images, method.prefixes(tensors, tasks)), head)
        train = place == "training"
        expected = network(images, prompt=prompt, q=queries, train=train, task_id=TASKS - 1)[0][:, 0]
        results[f"dualprompt logits, {place}"] = difference(own, linear(expected, head))
    return results


def l2p(code: Any, on: Backbone, network: Any, images: Tensor, head: Tensor, deep: bool) -> dict[str, float]:
    method = L2pPlus(pool_size=10, length=8, deep=deep)
    prompt = code.zoo.L2P(WIDTH, TASKS, [10, 8, 1 if deep else -1], key_dim=WIDTH)
    pool = {}
    for block in method.blocks:
        getattr(prompt, f"e_k_{block}").data.normal_()
        pool[f"keys.{block}"] = getattr(prompt, f"e_k_{block}").data
        pool[f"prompts.{block}"] = getattr(prompt, f"e_p_{block}").data
    queries = on.features(images)
    own = linear(method.read(on, images, queries, pool), head)
    expected = linear(network(images, prompt=prompt, q=queries, train=False)[0][:, 0], head)
    return {f"l2p++{', deep' if deep else ''} logits": difference(own, expected)}


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Our prompt methods beside the code of CODA-Prompt.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--timm", type=Path, required=True)
    given = parser.parse_args()
    code, on = imported(given.folder, given.timm), ours()
    network, images, head = theirs(code, on), torch.randn(IMAGES, 3, SIDE, SIDE), torch.randn(CLASSES, WIDTH)
    results = coda(code, on, network, images, head)
    with torch.no_grad():
        results |= dualprompt(code, on, network, images, head)
        results |= l2p(code, on, network, images, head, deep=False) | l2p(code, on, network, images, head, deep=True)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
