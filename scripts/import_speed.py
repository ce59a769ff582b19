"""What reading a LoRA of SDXL's size costs beside what no reader can do without: the file read, and one copy.

    python -m scripts.import_speed

The base is SDXL by its configs, without weights; the LoRA changes every linear layer of its transformer blocks. CPU
seconds of one thread, in pairs, one reading after another; the median of the pairs' ratios counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mnemon.export import read_adapter
from mnemon.files import file_sha256
from mnemon.models import Base
from mnemon.models.layers import every_layer
from mnemon.planning import read_configs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = read_configs("sdxl").empty_model(torch.float16)
    tensors = lora(base, options.rank)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lora.safetensors"
        save_file(tensors, file)
        print(f"{len(tensors)} tensors, {file.stat().st_size / 1e6:.0f} MB")
        tensors.clear()
        pairs = [
            (seconds(lambda: copied(file)), seconds(lambda: read_adapter([file], base))) for _ in range(options.pairs)
        ]
        digest = seconds(lambda: file_sha256(file))
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    theirs, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    print(
        f"load_file and a copy {theirs:.3f} s, read_adapter {ours:.3f} s, ratio {ratio:.2f}; sha256 {digest:.3f} s more"
    )


def lora(base: Base, rank: int) -> dict[str, Tensor]:
    """kohya's file in 16 bits."""
    tensors = {}
    for target, layer in every_layer(base).items():
        if isinstance(layer, nn.Linear) and "transformer_blocks" in target:
            name = f"lora_unet_{target.replace('.', '_')}"
            tensors[f"{name}.lora_down.weight"] = torch.randn(rank, layer.in_features).half()
            tensors[f"{name}.lora_up.weight"] = torch.randn(layer.out_features, rank).half()
            tensors[f"{name}.alpha"] = torch.tensor(float(rank)).half()
    return tensors


def copied(file: Path) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in load_file(file).items()}


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds, with what comes out of it freed outside of them."""
    start = time.process_time()
    result = run()
    taken = time.process_time() - start
    del result
    return taken


if __name__ == "__main__":
    main()
