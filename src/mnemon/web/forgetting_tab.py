"""Forgetting: the score matrix as a heat map, curves, and words."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from mnemon.evaluation import ScoreMatrix
from mnemon.report.charts import line_chart
from mnemon.report.rendering import TEMPLATES
from mnemon.web import forgetting
from mnemon.web.handlers import BUTTONS, clear, markdown, text
from mnemon.web.workspace import Workspace

TELL = """element.addEventListener('click', event => { const cell = event.target.closest('button[data-revision]');
  if (cell) trigger('select', {revision: Number(cell.dataset.revision), name: cell.dataset.name}); });"""

CHART = """
figure { --series-0: #14a094; --series-1: #d97706; --series-2: #8b7cf0; --series-3: #e0557a; --series-4: #5b91d0;
  --series-5: #8a9c3f; margin: 1rem 0; }
svg { display: block; width: 100%; max-width: 46rem; }
svg text { fill: var(--body-text-color); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--border-color-primary); }
.curve { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
"""


@dataclass
class ForgettingTab:
    """The tab, inside a `gr.Tab`."""

    workspace: Workspace

    def build(self) -> None:
        self.words = gr.Markdown(elem_id="verdict")
        self.heat = gr.HTML(js_on_load=TELL, elem_id="heat")
        self.images = gr.Gallery(
            buttons=BUTTONS, label="Choose a cell: its image beside the photos", columns=5, height=280,
            interactive=False, allow_preview=False, object_fit="contain", visible=False, elem_id="cell-images",
        )  # fmt: skip
        self.curves = gr.HTML(css_template=CHART)
        self.heat.select(clear(self._cell), None, self.images, api_visibility="private")

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.words, self.heat, self.curves]

    def show(self) -> list[Any]:
        """The library's scores as they are now."""
        matrix = forgetting.matrix(self.workspace)
        return [
            markdown(forgetting.words(self.workspace)),
            _heat_map(matrix) if matrix else "",
            _curves(matrix) if matrix else "",
        ]

    def _cell(self, event: gr.EventData) -> Any:
        data = event._data if isinstance(event._data, dict) else {}
        revision, name = data.get("revision"), data.get("name")
        known = forgetting.matrix(self.workspace)
        if known is None or name not in known.names or revision not in known.states:
            return gr.Gallery(visible=False)
        found = forgetting.images_of(self.workspace, int(revision), str(name))
        return gr.Gallery(value=[(str(file), what) for file, what in found], visible=bool(found))


def _curves(matrix: ScoreMatrix) -> str:
    """Each concept's score over the revisions, as the reports draw it."""
    values = matrix.values.T.tolist()
    series = {
        name: list(zip(matrix.states, line, strict=True)) for name, line in zip(matrix.names, values, strict=True)
    }
    macros: Any = TEMPLATES.get_template("macros.html").module
    return str(macros.line_chart(line_chart(series, "Identity alignment after each revision", percent=False)))


def _heat_map(matrix: ScoreMatrix) -> str:
    """A table of buttons: light is low, dark is high; the number is written in."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in matrix.names)
    rows = []
    for t, state in enumerate(matrix.states):
        cells = "".join(f"<td>{_cell(matrix, t, j)}</td>" for j in range(len(matrix.names)))
        rows.append(f'<tr><th scope="row">after {state}</th>{cells}</tr>')
    return (
        "<p>Identity alignment: how much a concept's images look like its photos; 1 is the same. Choose a cell to see "
        f'them.</p><div class="scroll"><table class="heat"><tr><td></td>{head}</tr>{"".join(rows)}</table></div>'
    )


def _cell(matrix: ScoreMatrix, t: int, j: int) -> str:
    value = matrix.values[t, j]
    if np.isnan(value):
        return ""
    depth = min(max(value, 0.0), 1.0)
    colour = "white" if depth > 0.7 else "#1b1b1b"
    back = f"rgb({round(236 - 216 * depth)},{round(240 - 160 * depth)},{round(248 - 138 * depth)})"
    name, state = text(matrix.names[j]), matrix.states[t]
    return (
        f'<button type="button" data-revision="{state}" data-name="{name}" aria-label="{name} after {state}: '
        f'{value:.2f}" style="background:{back};color:{colour}">{value:.2f}</button>'
    )
