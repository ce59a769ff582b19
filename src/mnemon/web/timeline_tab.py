"""Timeline: the library's revisions side by side, what differs, what to take out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mnemon import api
from mnemon.errors import MnemonError
from mnemon.names import safe_file_name
from mnemon.web import timeline
from mnemon.web.handlers import BUTTONS, clear, image, markdown, number, text
from mnemon.web.workspace import Workspace


@dataclass
class TimelineTab:
    """The tab, inside a `gr.Tab`."""

    workspace: Workspace

    def build(self) -> None:
        gr.Markdown("Every revision of the library draws the same image of each concept: same prompt, same seed.")
        self.draw = gr.Button("Draw what is missing", variant="primary", elem_id="draw-timeline")
        self.rows = gr.HTML(elem_id="timeline")
        with gr.Row(equal_height=True):
            self.before = gr.Dropdown([], label="Compare revision", type="value", elem_id="before")
            self.after = gr.Dropdown([], label="with revision", type="value", elem_id="after")
            self.concept = gr.Dropdown([], label="Concept", elem_id="compared")
        self.compare = gr.Button("Compare", elem_id="compare")
        self.differences = gr.Markdown(elem_id="differences")
        self.slider = gr.ImageSlider(
            buttons=BUTTONS,
            label="Before and after",
            type="filepath",
            visible=False,
            interactive=False,
            height=320,
            max_height=320,
        )
        with gr.Accordion("Remove or reorder", open=False):
            with gr.Row(equal_height=True):
                self.gone = gr.Dropdown([], label="Concept to take out", info="Past revisions still have it")
                self.remove = gr.Button("Take out", variant="stop", elem_id="remove")
            with gr.Row(equal_height=True):
                self.order = gr.Textbox(label="New order", info="All concepts, separated by spaces: a new library")
                self.reorder = gr.Button("Write the new library")
            self.done = gr.Markdown()
        self._wire()

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.rows, self.draw, self.before, self.after, self.concept, self.gone, self.order]

    def _wire(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private"}
        self.draw.click(clear(self._draw), None, self.outputs, **private)
        self.compare.click(
            clear(self._compare), [self.before, self.after, self.concept], [self.differences, self.slider], **private
        )
        self.remove.click(clear(self._remove), self.gone, [self.done, *self.outputs], **private)
        self.reorder.click(clear(self._reorder), self.order, self.done, **private)

    def show(self) -> list[Any]:
        """The library as it is now."""
        opened = self.workspace.opened()
        names = opened.names() if opened else []
        numbers = [entry.number for entry in timeline.revisions(self.workspace)]
        left = len(timeline.missing(self.workspace))
        return [
            _table(self.workspace),
            gr.Button(f"Draw what is missing ({left} revisions)" if left else "All is drawn", interactive=bool(left)),
            gr.Dropdown(choices=numbers, value=numbers[0] if numbers else None),
            gr.Dropdown(choices=numbers, value=numbers[-1] if numbers else None),
            gr.Dropdown(choices=names, value=names[0] if names else None),
            gr.Dropdown(choices=names, value=None, interactive=bool(opened and opened.can_remove)),
            " ".join(names),
        ]

    def _draw(self) -> Iterator[list[Any]]:
        for _ in timeline.draw_missing(self.workspace):
            yield self.show()
        yield self.show()

    def _compare(self, before: Any, after: Any, name: str | None) -> list[Any]:
        first, last = number(before, "the first revision"), number(after, "the second revision")
        if first is None or last is None:
            raise MnemonError("Choose two revisions.")
        said = "\n".join(f"- {markdown(line)}" for line in timeline.comparison(self.workspace, first, last))
        entries = {entry.number: entry for entry in timeline.revisions(self.workspace)}
        files = [timeline.image_of(self.workspace, entries[one], name) for one in (first, last)] if name else []
        both = tuple(str(file) for file in files if file.exists())
        return [said, gr.ImageSlider(value=both if len(both) == 2 else None, visible=len(both) == 2)]

    def _remove(self, name: str | None) -> list[Any]:
        if not name:
            raise MnemonError("Choose the concept to take out.")
        return [markdown(timeline.remove(self.workspace, name)), *self.show()]

    def _reorder(self, order: str) -> str:
        names, library = order.split(), self.workspace.library
        folder = library.with_name(f"{library.name}-{safe_file_name('-'.join(names))}")
        api.reorder(library, folder, names)
        return markdown(f"Written: {folder}. Look at it with `mnemon web -l {folder.name}`.")


def _table(workspace: Workspace) -> str:
    """A row for every revision, a column for every concept there ever was."""
    entries = timeline.revisions(workspace)
    if not entries:
        return "<p>There is no concept yet: teach one first.</p>"
    names = list(dict.fromkeys(entry.concept for entry in entries))
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    rows = []
    for entry in entries:
        files = [(name, timeline.image_of(workspace, entry, name)) for name in names]
        cells = [image(file, f"{name} after {entry.number}") if file.exists() else "" for name, file in files]
        what = f"{entry.number}: {'+' if entry.action == 'learn' else '−'} {entry.concept}"
        rows.append(f'<tr><th scope="row">{text(what)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return f'<div class="scroll"><table><tr><th scope="col">revision</th>{head}</tr>{"".join(rows)}</table></div>'
