"""One page that shows every concept of a library, at the same prompts and seeds whenever it is made."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from mnemon.api.opening import base_of, in_base
from mnemon.errors import MnemonError
from mnemon.files import write_text
from mnemon.library import Library
from mnemon.methods.base import TrainedConcept
from mnemon.models import Base
from mnemon.report import page
from mnemon.sampling import Composed, SamplingSettings, to_image

PROMPTS = ("a photo of {}", "a photo of {} in the snow", "a photo of {} on the beach")
SAMPLING = SamplingSettings(num_inference_steps=20)

Rows = Mapping[str, Mapping[str, str]]
"""Concept -> heading of a column -> HTML; a column may be missing."""


def preview(
    library: str | Path | Library,
    out: str | Path,
    *,
    base: str | Base | None = None,
    every: bool = False,
    prompts: Sequence[str] = PROMPTS,
    number: int = 2,
    on_state: Callable[[int, int], None] | None = None,
) -> Path:
    """Write one self-contained HTML page with images of all concepts, as the library is now or after every commit.

    Args:
        out: the page; one that is there already is replaced.
        every: a column for every state of the library, instead of one for every prompt.
        prompts: with `{}` where the concept is named.
        number: images of each prompt, with seeds 0, 1, ...
        on_state: hears the state that is being drawn and the newest one.

    Raises:
        MnemonError: the library has no concepts, or a prompt has no place for one.
    """
    opened = Library.open(library) if isinstance(library, str | Path) else library
    for prompt in prompts:
        if "{}" not in prompt:
            raise MnemonError(f'The prompt "{prompt}" has no place for the concept: write {{}} where it is named.')
    states = range(1, opened.state + 1) if every else [opened.state]
    past = {state: Library.open(opened.path, at=state) for state in states}
    if not any(one.names() for one in past.values()):
        raise MnemonError(f"The library {opened.path} has no concepts to show: teach it one with `mnemon learn`.")
    found = base_of(opened, base)
    rows: dict[str, dict[str, str]] = {}
    for state, one in past.items():
        if on_state is not None:
            on_state(state, opened.state)
        for name, columns in _drawn(one, found, prompts, number).items():
            shown = {f"after {state}": "".join(columns.values()) + _score(one, name)} if every else columns
            rows.setdefault(name, {}).update(shown)
    heads = [f"after {state}" for state in states] if every else list(prompts)
    return _write(Path(out), opened, rows, heads, prompts, number)


def _drawn(library: Library, base: Base, prompts: Sequence[str], number: int) -> dict[str, dict[str, str]]:
    """Concept -> prompt -> its images, as HTML."""
    with in_base(library, base) as composed:
        return {
            one.name: {prompt: _images(composed, one, prompt, number) for prompt in prompts} for one in composed.learned
        }


def _images(composed: Composed, one: TrainedConcept, prompt: str, number: int) -> str:
    text = prompt.replace("{}", composed.method.prompt_name(one.name, one.class_noun))
    images = composed.sample([text] * number, range(number), SAMPLING)
    return page.cell([to_image(image) for image in images], text)


def _score(library: Library, name: str) -> str:
    """Identity alignment as it was measured at the library's state, if it was."""
    scores = library.rows().get(library.state, {"concepts": {}})["concepts"].get(name, {})
    value = scores.get("identity_alignment")
    return "" if value is None else f'<span class="score">{page.number(value, 2)}</span>'


def _write(path: Path, library: Library, rows: Rows, heads: Sequence[str], prompts: Sequence[str], number: int) -> Path:
    facts = {
        "base": library.base_name,
        "method": library.method.name,
        "state": str(library.state),
        "prompts": ", ".join(prompts),
        "seeds": f"0 to {number - 1}",
    }
    introduction = "The same prompts and seeds every time; numbers are identity alignment where it was measured."
    style = files("mnemon.report").joinpath("library.css").read_text(encoding="utf-8")
    title = f"All concepts of {library.path.resolve().name}"
    write_text(path, page.document(title, introduction, facts, [_table(rows, heads)], style))
    return path


def _table(rows: Rows, heads: Sequence[str]) -> str:
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = []
    for name, cells in rows.items():
        body = "".join(f"<td>{cells.get(head, '')}</td>" for head in heads)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{body}</tr>')
    table = f'<table class="pictures"><thead><tr><td></td>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<section><div class="card wide">{table}</div></section>'
