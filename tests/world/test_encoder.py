"""The world's encoders as they are stored."""

import torch

from mnemon.world.encoder import ImageEncoder, packed, unpacked


def test_packed_weights_take_half_and_see_the_same() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder({}, embedding=16).eval()
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        before = encoder(images)
        small = packed(encoder.state_dict())
        encoder.load_state_dict(unpacked(small))
        same = (before * encoder(images)).sum(1)
    assert same.min() > 0.9995
    halves = sum(2 * tensor.numel() for tensor in encoder.state_dict().values())
    assert sum(tensor.numel() * tensor.element_size() for tensor in small.values()) < 0.52 * halves
