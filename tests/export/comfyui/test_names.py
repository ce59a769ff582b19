"""Every name that an export for ComfyUI writes is one that its loader maps, by the lists recorded from its own code."""

import pytest

from mnemon.export.naming import COMFY, KOHYA, mapped_by_comfyui, naming_of, spelled
from mnemon.models.layers import every_layer
from tests.export.comfyui.bases import ALL, real
from tests.export.comfyui.record import NAMES


@pytest.mark.parametrize("family", ALL)
def test_the_names_of_a_published_size_are_those_that_comfyui_maps(family: str) -> None:
    base, known = real(family), set((NAMES / f"{family}.txt").read_text().split())
    naming = naming_of(base)
    dialect = KOHYA if naming.kohya else COMFY
    mapped = {site: spelled(naming, site, dialect) in known for site in every_layer(base)}
    assert mapped == {site: mapped_by_comfyui(naming, site) for site in mapped}
    assert base.sites() and all(mapped[site] for site in base.sites())
