"""From a template and its data to one self-contained page: all text in HTML is escaped, nothing loaded from outside."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mnemon.files import write_text
from mnemon.report.formatting import number

TEMPLATES = Environment(
    loader=PackageLoader("mnemon.report"),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters["number"] = number
TEMPLATES.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")  # of Markdown


def write_page(path: Path, template: str, **data: object) -> Path:
    """Render `template`, a file in `templates/`, into `path`; returns the path."""
    write_text(path, TEMPLATES.get_template(template).render(**data))
    return path
