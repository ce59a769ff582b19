import re
from pathlib import Path

import pytest

from mnemon.library import Library
from tests.cli.conftest import Command

LIB = ("--library", "lib")


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemon.api.previewing.STEPS", 1)


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
    assert "states are 0 to 2" in mnemon("diff", 0, 3, *LIB).err


def test_diff_of_a_concept_removed_and_back(mnemon: Command, taught: Path) -> None:
    tom = Library.open("lib").learned()[1]
    mnemon("remove", "tom", *LIB)
    Library.open("lib").commit(tom)
    value = mnemon("diff", 2, 4, *LIB, "--json").json
    assert value["added"] == value["removed"] == ["tom"]
    assert max(value["layers"].values()) == 0


def test_learning_writes_the_page_anew_after_each_commit(teach: Command, mnemon: Command) -> None:
    for source, pictures in (("sip", 6), ("tom", 12)):
        assert teach("--no-score", "--preview-page", "all.html", *LIB, source=source).code == 0
        assert Path("all.html").read_text().count("<img") == pictures
