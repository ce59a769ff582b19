"""The page and the table: whole, self-contained, nothing left out, and alive in a browser."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mnemon.evaluation.figures import FIGURES
from mnemon.report.benchmark_page import write
from mnemon.report.formatting import shown
from mnemon.report.trials import trials_of
from tests.evaluation.runs import write_failure, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "line", "polyline", "circle"}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Two methods of two runs, one that failed altogether, and one failed run of another."""
    folder = tmp_path_factory.mktemp("runs")
    for method, quality, drop in (("c_lora", 0.8, 0.1), ("stamina", 0.9, 0.01)):
        for order in range(2):
            write_run(folder, method, order, quality=quality - 0.02 * order, drop=drop)
    write_failure(folder, "fl2t")
    write_failure(folder, "c_lora", order=2)
    assert write(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(out) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


class Parsed(HTMLParser):
    """Checks that tags are closed, and collects ids and what points to them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.targets |= {known["popovertarget"]} if "popovertarget" in known else set()
        assert tag != "img" or known["alt"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def test_the_page_is_whole_loads_nothing_and_has_every_formula_at_hand(page):
    parsed = Parsed(page)
    assert not re.search(r"https?://|<link|@import|url\(|<script src", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]{20})', page))
    assert len(set(parsed.ids)) == len(parsed.ids) and parsed.targets <= set(parsed.ids)
    assert len(parsed.targets) == len(FIGURES)  # every figure is in a table, and its formula is opened from there
    assert all(figure.formula and figure.meaning for figure in FIGURES.values())


def rows(page: str, heading: str) -> dict[str, str]:
    """The first table below a heading: method -> its cells as text."""
    table = page[page.index(f"<h2>{heading}</h2>") :]
    table = table[table.index("<tbody>") : table.index("</tbody>")]
    texts = [re.sub(r"<[^>]+>", " ", row) for row in table.split("<tr>")[1:]]
    return {text.split()[0]: " ".join(text.split()[1:]) for text in texts}


def test_the_leaderboard_ranks_by_identity_with_intervals_and_the_failed_last(page):
    board = rows(page, "Leaderboard")
    assert list(board) == ["stamina", "c_lora", "fl2t"]
    assert board["c_lora"].startswith("2 runs, 1 more failed 0.640 0.513 – 0.767")  # 0.65 and 0.63, t = 12.706
    assert board["fl2t"].startswith("failed, 1 of 1 – –") and not re.search(r"0\.\d", board["fl2t"])


def test_the_own_bound_stands_beside_what_is_kept_of_it(page, out):
    bound, count = rows(page, "Own bound"), trials_of("stamina").count
    assert re.match(r"2 runs 1\.000 .* 88 %", bound["stamina"]) and bound["stamina"].endswith(f" {count}")
    assert bound["c_lora"].endswith(" –")  # of a name that the table of trials does not know
    assert re.search(
        rf"\| stamina \(2 runs\) \| 1\.000 .*\| {count} \|", (out / "report.md").read_text(encoding="utf-8")
    )


def test_how_much_the_order_matters_is_shown_where_there_are_several(page):
    assert rows(page, "Spread over orders")["c_lora"].startswith("2 runs, 1 more failed 0.014 ")  # 0.65 and 0.63


def test_failed_runs_say_why(page):
    assert page.count("Out of &lt;memory&gt;.") == 2 and "learning c03" in page
    assert "<memory>" not in page
    assert "<li>stamina, 4 concepts: The prompt has &lt;too&gt; many words.</li>" in page


def test_every_run_has_its_matrices_and_every_method_its_images(page):
    assert page.count('<table class="heat">') == 4 * 3  # identity, image, confusion
    # side by side: 4 concepts; grids: just learned, after 1, at the end
    assert page.count("<img") == 2 * (4 + 4 + 1 + 4)
    assert page.count("identity alignment by place in the sequence</figcaption>") == 2


def test_a_long_sequence_shows_the_rows_that_were_scored(tmp_path):
    write_run(tmp_path, "lora", count=14, points=(1, 10, 14), strips=False)
    text = write(tmp_path).read_text(encoding="utf-8")
    Parsed(text)
    table = text[text.index('<table class="heat dense">') :]
    heads = re.findall(r'<th scope="row">([^<]*)</th>', table[: table.index("</table>")])
    assert heads == ["just learned", "after 10", "after 14", "retention", "photos"]
    assert "<h2>Spread over orders" not in text  # one order has none
    assert re.search(r"Confusion at the end: .*none", text)


def test_only_failures_make_a_page_too(tmp_path):
    write_failure(tmp_path, "lora")
    text = write(tmp_path).read_text(encoding="utf-8")
    Parsed(text)
    assert "failed, 1 of 1" in text and "0 of 1" in text


def test_names_are_escaped_everywhere(tmp_path):
    method = "<b>it's"
    write_run(tmp_path, method)
    write_run(tmp_path, "lora")
    text = write(tmp_path).read_text(encoding="utf-8")
    Parsed(text)
    assert "<b>it" not in text and text.count("&lt;b&gt;it&#39;s") > 20


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(-168.2, "seconds", "-168 s"), (0.23, "seconds", "0.23 s"), (4_012, "bytes", "4.0 kB"), (None, "bytes", "–")],
)
def test_values_are_written_as_people_read_them(value, unit, text):
    assert shown(value, unit) == text


def test_the_markdown_has_the_same_numbers(out):
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "| c_lora (2 runs, 1 more failed) | 0.640 [0.513, 0.767] |" in text
    assert "| fl2t (failed, 1 of 1) | – |" in text and "| Out of &lt;memory>. |" in text
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith(("| stamina", "| fl2t ("))
    }
    assert widths == {12, 5, 6}  # ten figures, two of the bound and the trials, four costs


PROBE = """
<script>
const names = (table) => [...table.tBodies[0].rows].map((row) => row.cells[0].dataset.value);
const table = document.querySelector("table.sortable");
const head = table.tHead.rows[0].cells[1];
const seen = { errors: [], start: names(table) };
addEventListener("error", (event) => seen.errors.push(event.message));
head.querySelector("button.sort").click();
seen.best = names(table);
seen.sort = head.getAttribute("aria-sort");
head.querySelector("button.sort").click();
seen.worst = names(table);
table.tHead.rows[0].cells[0].querySelector("button.sort").click();
seen.alphabet = names(table);
head.querySelector("button.about").click();
seen.formula = document.querySelector("#about-identity-alignment").matches(":popover-open");
for (const fold of document.querySelectorAll("details")) fold.open = true;
const images = [...document.images];
for (const image of images) image.loading = "eager";
addEventListener("load", () => {  // it waits for every image
  seen.images = [images.length, images.every((image) => image.complete && image.naturalWidth > 0)];
  document.body.insertAdjacentHTML("beforeend", `<pre id="probe">${btoa(JSON.stringify(seen))}</pre>`);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")
def test_in_a_browser_tables_sort_formulas_open_and_images_load(page, tmp_path):
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, f"file://{tmp_path / 'page.html'}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    seen = json.loads(base64.b64decode(re.search(r'<pre id="probe">([\w+/=]+)</pre>', done.stdout)[1]))
    assert seen == {
        "errors": [], "start": ["stamina", "c_lora", "fl2t"], "best": ["stamina", "c_lora", "fl2t"],
        "sort": "descending", "worst": ["c_lora", "stamina", "fl2t"], "alphabet": ["c_lora", "fl2t", "stamina"],
        "formula": True, "images": [26, True],
    }  # fmt: skip
