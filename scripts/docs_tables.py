"""Generated parts of the docs: settings from the dataclasses, equations from the docstrings, figures from their table.

    python -m scripts.docs_tables            write them
    python -m scripts.docs_tables --check    exit 1 if one is out of date

A generated part of a page stands between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a key of `PARTS`.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mnemon import METHODS, EvalSettings, TrainingSettings
from mnemon.classification.methods import CLASSIFIERS, ClassifierMethod
from mnemon.evaluation.figures import FIGURES, MATRIX_FIGURES, Figure
from mnemon.methods import Method
from mnemon.methods.aggregation import Elastic
from mnemon.models.profiles import PROFILES
from mnemon.report.trials import trials_of
from mnemon.settings_docs import attribute_docs
from scripts import cards, reader_matrix

ROOT = Path(__file__).parents[1]
PART = re.compile(r"(<!-- generated: (?P<name>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


Row = tuple[str, str, str]


@cache
def settings_rows(cls: type) -> list[Row]:
    """Field, default and meaning of every setting of a dataclass."""
    docs, hints = attribute_docs(cls), get_type_hints(cls)
    undocumented = [field.name for field in fields(cls) if field.name not in docs]
    if undocumented:
        raise SystemExit(f"{cls.__name__} has settings without a docstring: {', '.join(undocumented)}.")
    return [(f"`{field.name}`", _default(field, hints[field.name]), docs[field.name]) for field in fields(cls)]


def settings_table(rows: Sequence[Row]) -> str:
    return table(("setting", "default", "meaning"), rows)


def _default(field: "Field[Any]", hint: Any) -> str:
    """The default, and the other choices where there are some."""
    value = field.default
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    others = ", ".join(f"`{choice}`" for choice in choices if choice != value)
    return _value(value) + (f" (or {others})" if others else "")


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda found: "e" + found[1].replace("+", ""), f"{value:.3g}")
    return f"`{value}`" if isinstance(value, str) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def classifiers_table() -> str:
    """One row a classification method."""
    yes_no = {True: "yes", False: "no"}
    rows = [(f"`{name}`", cls.trains, cls.stores, yes_no[cls.merges], cls.source) for name, cls in CLASSIFIERS.items()]
    return table(("method", "trains, beside the head", "stores, beside the head", "in the weights", "source"), rows)


def classifier_part(cls: type[ClassifierMethod]) -> str:
    """A classification method's docstring, where its code is, and its settings."""
    link = f"[code](../{Path(inspect.getfile(cls)).relative_to(ROOT)})"
    return "\n\n".join([_escaped(inspect.getdoc(cls) or ""), link, _own_settings(cls, CLASSIFIERS)])


def method_part(cls: type[Method]) -> str:
    """A method's docstring, where its code and tests are, what it trains and stores, and its settings."""
    file = Path(inspect.getfile(cls))
    tests = ROOT / "tests" / "methods" / f"test_{file.stem}.py"
    links = [f"[code](../{file.relative_to(ROOT)})", *([f"[tests](../{tests.relative_to(ROOT)})"] * tests.exists())]
    facts = f"{' · '.join(links)} · source: {cls.source}\n\nTrains {cls.trains}. Stores {cls.stores}."
    return "\n\n".join([_escaped(inspect.getdoc(cls) or ""), facts, _own_settings(cls, METHODS)])


def _own_settings(cls: type, methods: Mapping[str, type]) -> str:
    """All settings, or those that differ from an earlier method of the list whose settings it has all."""
    rows, earlier = settings_rows(cls), list(methods)[: list(methods.values()).index(cls)]
    shared = {name: settings_rows(methods[name]) for name in earlier}
    same = [name for name in earlier if set(shared[name]) <= set(rows)]
    if not same:
        return settings_table(rows)
    own = [row for row in rows if row not in shared[same[0]]]
    settings = f"settings are those of [`{same[0]}`](#{same[0]})."
    return f"{settings_table(own)}\n\nThe other {settings}" if own else f"The {settings}"


def _escaped(docstring: str) -> str:
    """The docstring as Markdown: indented blocks are code already, stars in prose are no emphasis."""
    lines = [line if line.startswith("    ") else line.replace("*", "\\*") for line in docstring.splitlines()]
    return "\n".join(lines)


def methods_table() -> str:
    """One row a method."""
    yes_no = {True: "yes", False: "no"}
    rows = [
        (f"[`{name}`](#{name})", cls.trains, yes_no[cls.fuses], yes_no[cls.order_free], yes_no[cls.can_remove])
        for name, cls in METHODS.items()
    ]
    return table(("method", "trains", "fusion step", "independent of order", "exact removal"), rows)


def figures_table(figures: Mapping[str, Figure]) -> str:
    """One row a figure."""
    rows = [(f"`{name}`", one.title, one.formula, one.better or "–", one.meaning) for name, one in figures.items()]
    return table(("name", "title", "formula", "better", "meaning"), rows)


def trials_table() -> str:
    """One row a method: how many settings were tried of it, and in which sections of the lab log."""
    rows = []
    for name in METHODS:
        trials = trials_of(name)
        where = ", ".join(f"[{anchor.replace('-', ' ')}](#{anchor})" for anchor in trials.where)
        rows.append((f"`{name}`", "–" if trials.count is None else str(trials.count), where or "not noted"))
    return table(("method", "settings tried", "listed in"), rows)


def profiles_table() -> str:
    """One row a kind of base."""
    rows = [
        (
            name, one.weights, str(one.batch_size), _value(one.gradient_checkpointing), str(one.steps),
            f"× {one.lr_factor:g}", f"× {one.token_lr_factor:g}", str(one.lr_warmup_steps), _value(one.max_grad_norm),
            f"{one.guidance_scale:g}", str(one.num_inference_steps), str(one.images_at_once),
        )
        for name, one in PROFILES.items()
    ]  # fmt: skip
    head = ("base", "weights", "batch", "checkpointing", "steps", "rates", "token's rate", "warm-up", "clipping")
    return table((*head, "guidance", "sampling steps", "images at once"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "methods": methods_table,
    **{f"method {name}": partial(method_part, cls) for name, cls in METHODS.items()},
    "classifiers": classifiers_table,
    **{f"classifier {name}": partial(classifier_part, cls) for name, cls in CLASSIFIERS.items()},
    "elastic weight aggregation": lambda: _escaped(inspect.getdoc(Elastic) or ""),
    "evaluation settings": lambda: settings_table(settings_rows(EvalSettings)),
    "training settings": lambda: settings_table(settings_rows(TrainingSettings)),
    "trials": trials_table,
    "readers": lambda: table(reader_matrix.HEAD, reader_matrix.rows()),
    "profiles": profiles_table,
    "cards": lambda: table(cards.HEAD, cards.rows()),
    "figures": partial(figures_table, FIGURES),
    "figures of a matrix": partial(figures_table, MATRIX_FIGURES),
}


def rendered(page: str) -> str:
    """The page with its generated parts as they should be."""

    def part(found: "re.Match[str]") -> str:
        if found["name"] not in PARTS:
            raise SystemExit(f"There is no generated part '{found['name']}'; known: {', '.join(PARTS)}.")
        return f"{found[1]}\n{PARTS[found['name']]()}\n\n{found[3]}"

    return PART.sub(part, page)


def pages() -> list[Path]:
    """The pages that have generated parts."""
    return [page for page in sorted((ROOT / "docs").glob("*.md")) if PART.search(page.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which pages are out of date")
    check = parser.parse_args().check
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if rendered(text) != text:
            if check:
                sys.exit(f"{page.relative_to(ROOT)} is out of date: run python -m scripts.docs_tables")
            page.write_text(rendered(text), encoding="utf-8")


if __name__ == "__main__":
    main()
