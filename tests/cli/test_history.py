import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mnemon.library import Library
from mnemon.sampling import SamplingSettings
from tests.cli.conftest import Command

LIB = ("--library", "lib")


@pytest.fixture(autouse=True)
def quick_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemon.api.previewing.SAMPLING", SamplingSettings(num_inference_steps=1))


def test_preview_shows_all_concepts_on_a_page_that_needs_nothing_else(mnemon: Command, taught: Path) -> None:
    assert mnemon("preview", *LIB, "--json").json == {"page": "preview.html"}
    html = Path("preview.html").read_text()
    assert html.count("<img") == 2 * 3 * 2  # concepts, prompts, seeds
    assert html.count("a photo of &lt;sip&gt; mug in the snow") == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    mnemon("preview", *LIB)
    assert Path("preview.html").read_text() == html


def test_preview_of_every_state(mnemon: Command, taught: Path) -> None:
    assert mnemon("preview", *LIB, "--every", "--prompt", "{}", "-n", 1, "--out", "deep/page.html").code == 0
    html = Path("deep/page.html").read_text()
    assert html.count("<img") == 3  # sip, then sip and tom
    assert "after 1" in html and "after 2" in html and html.count('class="score"') == 3
    assert "write {} where" in mnemon("preview", *LIB, "--prompt", "a dog").err


def test_preview_of_a_library_without_concepts(mnemon: Command, taught: Path) -> None:
    for name in ("sip", "tom"):
        mnemon("remove", name, *LIB)
    assert "no concepts to show" in mnemon("preview", *LIB).err
    assert mnemon("preview", *LIB, "--at", 1, "--prompt", "{}").code == 0


def test_diff_says_what_came_and_how_far_the_weights_moved(mnemon: Command, taught: Path) -> None:
    value = mnemon("diff", 1, 2, *LIB, "--json").json
    assert (value["added"], value["removed"]) == (["tom"], [])
    assert value["scores"]["tom"]["identity_alignment"][0] is None
    assert all(isinstance(one, float) for one in value["scores"]["sip"]["identity_alignment"])
    distances = list(value["layers"].values())
    assert distances == sorted(distances, reverse=True) and distances[0] > 0
    back = mnemon("diff", 2, 1, *LIB, "--json").json
    assert (back["added"], back["removed"]) == ([], ["tom"])
    shown = mnemon("diff", 0, 2, *LIB).out
    assert "added: <sip> <tom>" in shown and "removed: none" in shown and "attn2.to_" in shown
    assert "revisions are 0 to 2" in mnemon("diff", 0, 3, *LIB).err


def test_diff_of_a_concept_removed_and_back(mnemon: Command, taught: Path) -> None:
    tom = Library.open("lib").learned()[1]
    mnemon("remove", "tom", *LIB)
    Library.open("lib").commit(tom)
    value = mnemon("diff", 2, 4, *LIB, "--json").json
    assert value["added"] == value["removed"] == ["tom"]
    assert max(value["layers"].values()) == 0


def test_learning_writes_the_page_anew_after_each_commit(teach: Command, mnemon: Command) -> None:
    for source, images in (("sip", 6), ("tom", 12)):
        assert teach("--no-score", "--preview-page", "all.html", *LIB, source=source).code == 0
        assert Path("all.html").read_text().count("<img") == images


def test_reorder_writes_a_new_library_and_leaves_the_old_one(mnemon: Command, taught: Path) -> None:
    def everything() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in taught.rglob("*") if file.is_file()}

    before = everything()
    value = mnemon("reorder", "tom", "sip", *LIB, "--out", "new", "--json").json
    assert value == {"library": "new", "concepts": ["tom", "sip"], "state": 2}
    assert everything() == before
    old, new = Library.open("lib"), Library.open("new")
    assert new.method == old.method and new.fingerprint == old.fingerprint and new.rows() == {}
    for name in ("sip", "tom"):
        for file in old.concepts()[name].files:
            ours, theirs = (load_file(one.path / "concepts" / one.concepts()[name].folder / file) for one in (old, new))
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert new.references(name).keys() == {"image", "identity"}
    drawn = []
    for library in ("lib", "new"):
        mnemon("generate", "<sip> mug", "--library", library, "--steps", 2, "-n", 1, "--out", library + "-pictures")
        drawn.append(np.asarray(Image.open(f"{library}-pictures/00000.png"), int))
    assert abs(drawn[0] - drawn[1]).max() <= 1  # sums in another order


def test_reorder_refuses_what_it_cannot_do(mnemon: Command, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "look at 'sip'" in mnemon("reorder", "tom", *LIB, "--out", "new").err
    assert "it has: sip, tom" in mnemon("reorder", "tom", "rex", *LIB, "--out", "new").err
    assert "exists already" in mnemon("reorder", "tom", "sip", *LIB, "--out", "lib").err
    monkeypatch.setattr("mnemon.methods.lora.Lora.can_remove", False)
    assert "share one change" in mnemon("reorder", "tom", "sip", *LIB, "--out", "new").err
    assert not Path("new").exists() and not Path(".new.reordering").exists()
