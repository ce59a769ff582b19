"""What the source says of each setting of a dataclass, for help texts and the docs."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence


def attribute_docs(cls: type) -> dict[str, str]:
    """What is said of each attribute, below it or in the class's docstring; a class's own before those of its bases."""
    docs: dict[str, str] = {}
    for owner in reversed([each for each in cls.__mro__ if each.__module__.startswith("mnemon.")]):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        docs |= dict(_attributes_section(inspect.getdoc(owner) or "")) | dict(_documented(body.body))
    return docs


def _attributes_section(docstring: str) -> Iterator[tuple[str, str]]:
    """The entries `name: text` of a docstring's section "Attributes:"."""
    section = re.search(r"^Attributes:\n((?: .*\n?|\n)*)", docstring, re.MULTILINE)
    for entry in re.split(r"\n(?=    \S)", section[1] if section else ""):
        name, colon, text = entry.partition(":")
        if colon:
            text = " ".join(text.split())
            yield name.strip(), text[:1].upper() + text[1:]


def _documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, after in zip(body, body[1:], strict=False):
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if documented and isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
