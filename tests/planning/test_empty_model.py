import json
from pathlib import Path

import pytest
import torch

from mnemon import MnemonError
from mnemon.planning import read_configs, shipped_configs
from tests.tiny import tiny_sd

DENOISERS = {
    "sdxl": 2_567_463_684,
    "flux2-klein-4b": 3_875_544_576,
    "sd3.5-medium": 2_243_171_520,
}
"""Parameters as the installed diffusers builds them; the position table of SD 3.5 is none of them."""


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_size_becomes_its_family_without_bytes(name: str) -> None:
    base = read_configs(name).empty_model(torch.bfloat16)
    count = sum(weight.numel() for weight in base.denoiser.parameters())
    assert base.resolution == 1024 and base.device.type == "meta" and base.dtype == torch.bfloat16
    assert count == DENOISERS.get(name, count) and base.target_modules()


def test_an_unknown_base_lists_the_known_ones() -> None:
    with pytest.raises(MnemonError, match="flux2-klein-4b, sd3.5-medium, sdxl, z-image"):
        read_configs("nowhere")


def test_configs_that_give_no_base_are_one_clear_error(tmp_path: Path) -> None:
    tiny_sd().save_pretrained(tmp_path)
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [8]}))
    with pytest.raises(MnemonError, match="give no base"):
        read_configs(str(tmp_path)).empty_model(torch.float32)
    config.unlink()
    with pytest.raises(MnemonError, match="cannot be read"):
        read_configs(str(tmp_path))
