"""The pages say what the code says: generated parts are current, links resolve, snippets fit, options exist."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mnemon import METHODS
from mnemon.classification import CLASSIFIERS
from mnemon.cli import app
from scripts import docs_tables

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!\w+:)(?P<file>[^)#\s]*)(?:#(?P<part>[^)\s]+))?\)")
COMMAND = re.compile(r"^ +(?:\$ )?mnemon (?:[^\n]*\\\n)*[^\n]*|`mnemon [^`]*`", re.MULTILINE)
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The headings of a page as its links name them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", docs_tables.pages(), ids=lambda page: page.name)
def test_generated_tables_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert docs_tables.rendered(text) == text, "run: python -m scripts.docs_tables"


def test_every_method_has_its_generated_part():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    missing = [name for name in METHODS if f"<!-- generated: method {name} -->" not in text]
    text = (ROOT / "docs" / "classification.md").read_text(encoding="utf-8")
    missing += [name for name in CLASSIFIERS if f"<!-- generated: classifier {name} -->" not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_resolve(page):
    broken = []
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / found["file"]).resolve() if found["file"] else page
        lost_part = found["part"] and target.suffix == ".md" and found["part"] not in anchors(target)
        if not target.exists() or lost_part:
            broken.append(found[0])
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_snippets_fit_the_code(page):
    for snippet in SNIPPET.findall(page.read_text(encoding="utf-8")):
        tree = ast.parse(snippet, page.name)
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        names = {
            alias.name: getattr(import_module(node.module), alias.name) for node in imports for alias in node.names
        }
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id in names:
                keywords = {keyword.arg: None for keyword in call.keywords}
                inspect.signature(names[call.func.id]).bind(*call.args, **keywords)


def known_commands() -> dict[str, Any]:
    """All commands, those of groups as "base world"."""
    top = typer.main.get_command(app).commands
    groups = {name: command.commands for name, command in top.items() if hasattr(command, "commands")}
    return top | {f"{group} {name}": one for group, inner in groups.items() for name, one in inner.items()}


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The name and the options of every command that a page shows."""
    known = known_commands()
    for found in COMMAND.findall(page.read_text(encoding="utf-8")):
        words = found.strip("` $").split()[1:]
        if len(words) > 1 and f"{words[0]} {words[1]}" in known:  # a command of a group
            words[:2] = [f"{words[0]} {words[1]}"]
        if words and words[0] in known:
            yield words[0], [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_shown_commands_exist(page):
    unknown = []
    for name, options in commands(page):
        known = {
            option
            for parameter in known_commands()[name].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        unknown += [f"{name} {option}" for option in options if option not in known]
    assert not unknown


def test_the_guide_walks_through_libraries_that_it_names():
    """Its indented commands are run one after another; without a library they would look for `mnemon-library`."""
    guide = next(page for page in PAGES if page.name == "guide.md").read_text(encoding="utf-8")
    known = known_commands()
    for shown in re.findall(r"^    mnemon (?:[^\n]*\\\n)*[^\n]*", guide, re.MULTILINE):
        options = {option for one in known[shown.split()[1]].params for option in one.opts}
        assert "--library" not in options or "--library" in shown, shown
