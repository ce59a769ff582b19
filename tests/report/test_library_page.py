"""Plots and the page: they show what they were given and need nothing from outside."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mnemon.api.previewing import write_preview
from mnemon.evaluation.figures import MATRIX_FIGURES
from mnemon.evaluation.matrix import ScoreMatrix, figures
from mnemon.methods import METHODS
from mnemon.report.images import ImageCell, thumbnail
from mnemon.report.library_page import MethodReport, Report, write_report
from mnemon.report.plots import plot_curves, plot_matrix

VOID = {"meta", "img"}


def run(count: int = 3, drop: float = 0.1) -> ScoreMatrix:
    t, j = np.indices((count, count))
    names = tuple(f"thing-{index}" for index in range(count))
    return ScoreMatrix(names, tuple(range(1, count + 1)), np.where(t >= j, 0.9 - drop * (t - j), np.nan))


def swatch(colour: str, side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def method(name: str, drop: float) -> MethodReport:
    shown = {"thing-0": {1: [swatch("red")], 2: [swatch("blue")]}, "thing-1": {2: [swatch("green")] * 2}}
    costs = {"seconds": "12"}
    return MethodReport(name, run(drop=drop), run(drop=drop / 2), shown, {0: 0.3, 3: 0.3 - drop}, costs, "A <note>.")


def report() -> Report:
    return Report(
        "Tom & <Jerry>",
        "Two methods.",
        [method("stamina", 0.01), method("lora", 0.2)],
        photos={"thing-0": [swatch("white", 512)]},
        facts={"seed": "0"},
        ceilings={"identity": {"thing-0": 0.95, "thing-1": None}},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "demo" / "report.html"
    write_report(path, report())
    return path.read_text(encoding="utf-8")


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(page):
    checker = Balance()
    checker.feed(page)
    assert checker.open == []
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    sources = re.findall(r'src="([^"]{20})', page)
    assert sources and all(source.startswith("data:image/") for source in sources)


def test_the_page_shows_the_matrices_and_the_numbers(page):
    assert page.count('<table class="heat">') == 4
    formula = "(max_t R[t, j] - R[N, j])"
    for text in ("0.70", "0.50", "0.95", "Forgetting, best − last", formula, "0.300 before anything was learned", "12"):
        assert text in page
    # mean of 0.9 - 0.2 · (2, 1) over the two earlier concepts
    assert ">0.300<" in page and ">0.015<" in page


def test_every_image_given_is_in_the_page(page):
    assert page.count("<img") == 2 * (4 + 1)
    assert page.count('alt="thing-0 after step 2"') == 2


def test_text_is_escaped(page):
    assert "Tom &amp; &lt;Jerry&gt;" in page and "<Jerry>" not in page and "A &lt;note&gt;." in page


def test_names_of_concepts_and_methods_are_escaped_in_tables_charts_and_alternative_texts(tmp_path):
    name, path = '<b>"it\'s"', tmp_path / "page.html"
    matrix = ScoreMatrix((name,), (1,), np.array([[0.9]]))
    method = MethodReport("<i>own", matrix, matrix, {name: {1: [swatch("red")]}}, costs={"<s>": "<u>1"})
    write_report(path, Report("T", "I", [method], {name: [swatch("blue")]}, {"<a>": "<em>"}))
    text = path.read_text(encoding="utf-8")
    Balance().feed(text)
    assert not re.search(r"<(b|i|s|u|a|em)>[^<]*(it|own|1)", text) and "<em>" not in text
    assert text.count("&lt;b&gt;&#34;it&#39;s&#34; after step 1") == 1 and text.count("&lt;i&gt;own") >= 5
    assert ">&lt;u&gt;1<" in text


def test_every_figure_of_a_matrix_has_its_formula():
    assert figures(run()).keys() == MATRIX_FIGURES.keys()


def test_the_preview_page_shows_a_row_a_concept_and_escapes_names(tmp_path):
    library = SimpleNamespace(
        path=tmp_path / "<lib>", base_name="world", public_base="world", method=METHODS["lora"], revision=2
    )
    cells = {"<rex>": {"a photo of {}": ImageCell({"a photo of <rex>": [thumbnail(swatch("red"))] * 2}, 0.5)}}
    text = write_preview(
        tmp_path / "page.html", library, cells, ["a photo of {}", "{} <here>"], ["a photo of {}", "{} <here>"], 2
    ).read_text(encoding="utf-8")
    checker = Balance()
    checker.feed(text)
    assert checker.open == [] and text.count("<img") == 2 and "<rex>" not in text and "<here>" not in text
    assert "All concepts of &lt;lib&gt;" in text and '<span class="score">0.50</span>' in text
    assert "<td></td></tr>" in text  # no images of the second prompt


def test_the_better_method_is_marked_and_a_tie_is_not(page):
    assert re.search(r'Retention<small>[^<]*</small></th><td class="best">', page)  # stamina, the first column
    assert re.search(r"Learning accuracy<small>[^<]*</small></th><td>0.900</td><td>0.900</td>", page)


def test_a_page_without_any_concept_is_still_a_page(tmp_path):
    empty = ScoreMatrix((), (), np.zeros((0, 0)))
    write_report(tmp_path / "empty.html", Report("Empty", "", [MethodReport("lora", empty, empty)]))
    assert "–" in (tmp_path / "empty.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 3, 12])
def test_plots_are_images_that_grow_with_the_matrix(tmp_path, count):
    plot_matrix(tmp_path / "plots" / "matrix.png", run(count, 0.02), "identity")
    plot_curves(tmp_path / "plots" / "curves.png", run(count, 0.02), "identity", {"thing-0": 0.95, "thing-1": None})
    with Image.open(tmp_path / "plots" / "matrix.png") as image:
        assert image.format == "PNG" and image.width >= 150 * (1.8 + 0.8 * max(count, 2)) - 2
    with Image.open(tmp_path / "plots" / "curves.png") as image:
        assert image.format == "PNG"
