"""0/1 masks as packed bits: eight entries a byte."""

import numpy as np
import torch
from torch import Tensor


def pack_bits(mask: Tensor) -> Tensor:
    """A boolean mask of any shape to uint8 bytes (ceil(entries / 8),), row by row, most significant bit first."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def unpack_bits(packed: Tensor, shape: tuple[int, int]) -> Tensor:
    """The boolean mask of `shape` that `pack_bits` packed, on the device of `packed`."""
    count = shape[0] * shape[1]
    bits = np.unpackbits(packed.cpu().numpy(), count=count)
    return torch.from_numpy(bits).bool().reshape(shape).to(packed.device)
