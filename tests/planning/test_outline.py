import pytest
import torch

from mnemon import MnemonError
from mnemon.planning import known_sizes, outline

DENOISERS = {
    "sdxl": 2_567_463_684,
    "flux2-klein-4b": 3_875_544_576,
    "sd3.5-medium": 2_243_171_520,
}
"""Parameters as the installed diffusers builds them; the position table of SD 3.5 is none of them."""


@pytest.mark.parametrize("name", known_sizes())
def test_a_shipped_size_becomes_its_family_without_bytes(name: str) -> None:
    base = outline(name).base(torch.bfloat16)
    count = sum(weight.numel() for weight in base.denoiser.parameters())
    assert base.resolution == 1024 and base.device.type == "meta" and base.dtype == torch.bfloat16
    assert count == DENOISERS.get(name, count) and base.sites()


def test_an_unknown_base_lists_the_known_ones() -> None:
    with pytest.raises(MnemonError, match="flux2-klein-4b, sd3.5-medium, sdxl, z-image"):
        outline("nowhere")
