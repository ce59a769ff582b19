"""The whole way in a real browser: photos, learn, draw with two regions, compare, export; a kill in the middle."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mnemon import api
from mnemon.library import Library
from mnemon.methods.lora import Lora
from mnemon.models import load_base
from mnemon.training import TrainingSettings
from mnemon.world import thing_concept
from tests.web.conftest import photo
from tests.web.serving import Server, serving

pytestmark = pytest.mark.browser
if find_spec("gradio") is None or find_spec("playwright") is None:
    pytest.skip("the page needs the extra web (gradio), and a browser is driven by playwright", allow_module_level=True)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no Chromium to drive", allow_module_level=True)
SHOTS = os.environ.get("MNEMON_SCREENSHOTS")
"""A folder for screenshots, to look at."""
REFUSED = ("AbortError", "errored out")
"""What Gradio's own parts say where a page is loaded anew, or the server refuses something."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A tab of the browser, which fails on any error in its console."""

    def __init__(self, browser: Any, server: Server, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(120_000)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.server = server
        self.page.goto(server.address)
        self.open("Teach")

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.wait_for_timeout(800)
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)

    def drag(self, left: float, top: float, right: float, bottom: float) -> None:
        canvas = self.page.locator(".region-canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        self.page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=4)
        self.page.mouse.up()

    def close(self, *expected: str) -> None:
        assert [error for error in self.errors if not any(known in error for known in expected)] == []
        foreign = [url for url in self.requests if not url.startswith((self.server.address, "data:", "blob:"))]
        assert foreign == []
        self.page.close()


def teach(tab: Tab, photos: list[Path], name: str, noun: str, steps: int) -> None:
    page = tab.page
    page.locator("#photos input[type=file]").set_input_files([str(file) for file in photos])
    page.get_by_text("held out to score on").wait_for()
    page.locator("#name input, #name textarea").fill(name)
    page.locator("#noun input, #noun textarea").fill(noun)
    page.get_by_role("button", name="More settings").first.click()
    page.locator("#steps input").fill(str(steps))
    tab.shot("teach")
    page.locator("#learn").click()


def test_from_photos_to_an_export(browser: Any, tmp_path: Path, taught: Path) -> None:
    from playwright.sync_api import expect

    library = tmp_path / "lib"
    shutil.copytree(taught, library)
    photos = [photo(tmp_path / "dropped" / f"{number}.png", number) for number in range(5)]
    with serving(library) as server:
        tab = Tab(browser, server)
        page = tab.page
        teach(tab, photos, "Mein Hund", "dog", 20)
        page.get_by_text("learned in").wait_for()
        tab.shot("learned")
        assert Library.open(library).names() == ["sip", "tom", "mein_hund"]
        assert page.locator("#samples img").count() > 0

        tab.open("Draw")
        page.get_by_text("<mein_hund> dog", exact=True).click()
        expect(page.locator("#prompt textarea")).to_have_value("a photo of <mein_hund> dog", timeout=60_000)
        page.get_by_role("button", name="Regions").click()
        for number, box in enumerate([(0.02, 0.05, 0.48, 0.95), (0.52, 0.05, 0.98, 0.95)], start=1):
            tab.drag(*box)
            page.locator(f"#region-{number}").wait_for()
        page.locator(".region-canvas div").nth(1).wait_for()
        page.get_by_role("button", name="More settings").last.click()
        page.locator("#number input[type=number]").fill("2")
        page.locator("#draw").click()
        page.locator("#gallery img").first.wait_for()
        page.locator("#stop-drawing").wait_for(state="hidden")
        page.locator("#gallery .thumbnail-lg").first.click()
        page.get_by_text("region 0.52").wait_for()
        tab.shot("draw")
        page.locator("#again").click()

        tab.open("Timeline")
        page.locator("#draw-timeline").click()
        page.get_by_text("All is drawn").wait_for()
        page.locator("#compare").click()
        page.get_by_text("Revision 3 has").wait_for()
        tab.shot("timeline")
        tab.open("Forgetting")
        page.locator("#heat button").first.click()
        page.locator("#cell-images img").first.wait_for()
        tab.shot("forgetting")
        tab.open("Take along")
        page.locator("#export-names input").first.check()
        page.locator("#export").click()
        with page.expect_download() as download:
            page.locator("#archive a").first.click()
        assert download.value.suggested_filename == "sip-kohya-3.zip"
        tab.shot("take-along")
        tab.close()


def test_a_killed_server_loses_no_training(browser: Any, tmp_path: Path, world_folder: Path) -> None:
    library = tmp_path / "lib"
    photos = [photo(tmp_path / "dropped" / f"{number}.png", number) for number in range(4)]
    new = ("--base", str(world_folder), "--method", "lora")
    with serving(library, *new) as server:
        tab = Tab(browser, server)
        teach(tab, photos, "rex", "dog", 5000)
        tab.page.get_by_text("step 5").first.wait_for()
        tab.page.reload()  # the training is the server's
        tab.page.get_by_text("of 5000").first.wait_for()
        second = Tab(browser, server)
        teach(second, photos, "tom", "cat", 1)
        second.page.get_by_text("The model is busy learning <rex>").wait_for()
        second.close(*REFUSED)
        tab.close(*REFUSED)
    with serving(library, *new) as server:
        tab = Tab(browser, server)
        tab.page.get_by_text("<rex> is not finished").wait_for()
        tab.page.locator("#resume").click()
        tab.page.get_by_text("of 5000").first.wait_for()
        tab.page.locator("#stop").click()
        tab.page.get_by_text("Stopped after").wait_for()
        tab.close()


def test_names_with_markup_are_text(browser: Any, tmp_path: Path, world_folder: Path) -> None:
    markup = "<u id=x>"
    library = tmp_path / "lib"
    base, training = load_base(str(world_folder)), TrainingSettings(steps=1, batch_size=1)
    concept = replace(thing_concept("sip", 201, "mug").photos(2, seed=1), class_noun=markup)
    concept = replace(concept, photos=tuple(replace(one, caption=None) for one in concept.photos))
    api.learn(library, concept, base=base, method=Lora(rank=2), training=training, scored=False)
    dropped = photo(tmp_path / "dropped" / f"{markup}.png")
    with serving(library) as server:
        tab = Tab(browser, server)
        tab.page.on("dialog", lambda dialog: tab.errors.append(dialog.message))
        tab.page.locator("#photos input[type=file]").set_input_files([str(dropped)])
        tab.page.get_by_text("photos to learn from").wait_for()
        tab.page.locator("#name input, #name textarea").fill(f"!{'<>' * 3}!")
        tab.page.locator("#learn").click()
        tab.page.get_by_text("has no letter that a name could have").wait_for()
        for name in ("Draw", "Timeline", "Forgetting", "Take along"):
            tab.open(name)
            tab.page.wait_for_timeout(500)
        assert tab.page.locator("#x").count() == 0
        tab.close(*REFUSED)


def test_a_narrow_screen_has_no_sideways_scrolling(browser: Any, tmp_path: Path, taught: Path) -> None:
    library = tmp_path / "lib"
    shutil.copytree(taught, library)
    with serving(library) as server:
        tab = Tab(browser, server, width=390)
        for name in ("Teach", "Draw"):
            tab.open(name)
            tab.page.wait_for_timeout(500)
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
            tab.shot(f"narrow-{name.lower()}")
        tab.close()
