"""Every name that an export for ComfyUI writes is one that its loader maps, by the lists recorded from its own code."""

import pytest

from mnemon.export.lora import layer_keys
from mnemon.export.naming import COMFY, KOHYA, mapped_by_comfyui, naming_of
from mnemon.models.layers import every_layer
from tests.export.comfyui.bases import ALL, real
from tests.export.comfyui.record import NAMES


@pytest.mark.parametrize("family", ALL)
def test_the_names_of_a_published_size_are_those_that_comfyui_maps(family: str) -> None:
    base, known = real(family), set((NAMES / f"{family}.txt").read_text().split())
    naming = naming_of(base)
    format = KOHYA if naming.kohya else COMFY
    keys = layer_keys(base, naming, format)
    mapped = {target: keys[target] in known for target in every_layer(base)}
    assert mapped == {target: mapped_by_comfyui(naming, target) for target in mapped}
    assert base.target_modules() and all(mapped[target] for target in base.target_modules())
