"""Regions of the image to draw: boxes drawn with the mouse or typed, each with a concept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from mnemon.errors import MnemonError
from mnemon.web.drawing import REGIONS, region_texts
from mnemon.web.handlers import clear, text
from mnemon.web.workspace import Workspace

COLOURS = ("#d1495b", "#2e86ab", "#3a7d44", "#b7791f")
HALVES = ("0, 0, 0.5, 1", "0.5, 0, 1, 1", "0.25, 0, 0.75, 0.5", "0.25, 0.5, 0.75, 1")
CANVAS = """<div class="region-canvas" role="img" aria-label="Where the regions are">${value}</div>"""
STYLE = """
.region-canvas { position: relative; width: 100%; max-width: 320px; aspect-ratio: 1; margin: 0 auto; cursor: crosshair;
  touch-action: none; border: 2px dashed var(--border-color-primary); background: var(--background-fill-secondary); }
.region-canvas div { position: absolute; border: 2px solid; opacity: .85; padding: 2px 4px; font-size: 12px;
  color: white; overflow: hidden; pointer-events: none; box-sizing: border-box; }
.region-canvas p { position: absolute; inset: 40% 8% auto; text-align: center; margin: 0; pointer-events: none; }
"""
DRAW = """
let from = null, box = null;
const area = () => element.querySelector('.region-canvas');
const at = event => { const edge = area().getBoundingClientRect();
  const share = (value, start, size) => Math.min(Math.max((value - start) / size, 0), 1);
  return [share(event.clientX, edge.left, edge.width), share(event.clientY, edge.top, edge.height)]; };
const corners = to => [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]),
  Math.max(from[1], to[1])];
element.addEventListener('pointerdown', event => { if (!event.target.closest('.region-canvas')) return;
  from = at(event); box = document.createElement('div'); box.style.borderColor = 'var(--body-text-color)';
  area().append(box); event.preventDefault(); });
window.addEventListener('pointermove', event => { if (!from) return; const [l, t, r, b] = corners(at(event));
  box.style.cssText += `;left:${l * 100}%;top:${t * 100}%;width:${(r - l) * 100}%;height:${(b - t) * 100}%`; });
window.addEventListener('pointerup', event => { if (!from) return; const drawn = corners(at(event));
  from = null; box.remove();
  if (drawn[2] - drawn[0] > 0.05 && drawn[3] - drawn[1] > 0.05) trigger('input', {box: drawn}); });
"""


@dataclass
class RegionRows:
    """The canvas, and a row for each region: what, where, and a button to take it away."""

    workspace: Workspace
    rows: list[gr.Row] = field(default_factory=list)
    prompts: list[gr.Dropdown] = field(default_factory=list)
    places: list[gr.Textbox] = field(default_factory=list)

    def build(self) -> None:
        gr.Markdown("Drag a box where a concept should be, then choose which; or add a region and type its corners.")
        self.canvas = gr.HTML(_canvas([], []), html_template=CANVAS, css_template=STYLE, js_on_load=DRAW)
        removing = []
        for number in range(1, REGIONS + 1):
            with gr.Row(visible=False, equal_height=True) as row:
                self.prompts.append(
                    gr.Dropdown(
                        [],
                        label=f"Region {number}",
                        info="A concept, or a prompt of its own",
                        allow_custom_value=True,
                        min_width=120,
                        elem_id=f"region-{number}",
                    )
                )
                self.places.append(gr.Textbox(label="Left, top, right, bottom (0 to 1)", max_lines=1, min_width=120))
                removing.append(gr.Button("Take away", size="sm", min_width=60))
            self.rows.append(row)
        self.add = gr.Button("Add a region", size="sm", elem_id="add-region")
        self.per_region = gr.Checkbox(
            label="Draw each region on its own first",
            value=True,
            info="For models that draw one centred object, such as the built-in one",
        )
        self._wire(removing)

    def _wire(self, removing: Sequence[gr.Button]) -> None:
        values, outputs = [*self.prompts, *self.places], [self.canvas, *self.rows, *self.prompts, *self.places]
        self.canvas.input(clear(self._drawn), values, outputs, show_progress="hidden", api_visibility="private")
        self.add.click(clear(self._added), values, outputs, show_progress="hidden", api_visibility="private")
        for number, button in enumerate(removing):
            without = clear(lambda *given, number=number: self._without(number, *given))
            button.click(without, values, outputs, show_progress="hidden", api_visibility="private")
        for component in values:
            component.change(self._redrawn, values, self.canvas, show_progress="hidden", api_visibility="private")

    @property
    def inputs(self) -> list[Any]:
        """What `texts` takes."""
        return [*self.prompts, *self.places]

    def texts(self, *values: str) -> tuple[str, ...]:
        """`box:prompt` of every region.

        Raises:
            MnemonError: one is not complete.
        """
        pairs = _pairs(values)
        boxes = [{"box": place.split(","), "prompt": prompt} for prompt, place in pairs]
        for number, box in enumerate(boxes, start=1):
            if len(box["box"]) != 4:
                raise MnemonError(
                    f"Region {number} needs four corners: left, top, right, bottom, such as 0, 0, 0.5, 1."
                )
        return region_texts(boxes)

    def choices(self) -> list[str]:
        return [f"<{name}>" for name in self.workspace.called()]

    def _drawn(self, event: gr.EventData, *values: str) -> list[Any]:
        corners = event._data.get("box") if isinstance(event._data, dict) else None
        if not isinstance(corners, list) or not all(isinstance(corner, int | float) for corner in corners):
            raise MnemonError("That was no box: drag from one corner to the other.")
        pairs = _pairs(values)
        if len(pairs) == REGIONS:
            raise MnemonError(f"{REGIONS} regions are the most: take one away first.")
        place = ", ".join(f"{corner:.2f}" for corner in corners[:4])
        return self._shown([*pairs, (self._next(pairs), place)])

    def _added(self, *values: str) -> list[Any]:
        pairs = _pairs(values)
        if len(pairs) == REGIONS:
            raise MnemonError(f"{REGIONS} regions are the most: take one away first.")
        return self._shown([*pairs, (self._next(pairs), HALVES[len(pairs)])])

    def _without(self, number: int, *values: str) -> list[Any]:
        pairs = _pairs(values)
        return self._shown(pairs[:number] + pairs[number + 1 :])

    def _redrawn(self, *values: str) -> str:
        pairs = _pairs(values)
        return _canvas([prompt for prompt, _ in pairs], [place for _, place in pairs])

    def _next(self, pairs: Sequence[tuple[str, str]]) -> str:
        """The first concept that has no region yet."""
        taken = {prompt for prompt, _ in pairs}
        return next((name for name in self.choices() if name not in taken), "")

    def _shown(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        padded = [*pairs, *[("", "")] * (REGIONS - len(pairs))]
        prompts, places = zip(*padded, strict=True)
        choices = self.choices()
        return [
            self._redrawn(*prompts, *places),
            *(gr.Row(visible=number < len(pairs)) for number in range(REGIONS)),
            *(gr.Dropdown(choices=choices, value=prompt) for prompt in prompts),
            *places,
        ]


def _pairs(values: Sequence[str]) -> list[tuple[str, str]]:
    """(prompt, place) of every row that has a place."""
    pairs = zip(values[:REGIONS], values[REGIONS:], strict=True)
    return [(str(prompt or "").strip(), str(place).strip()) for prompt, place in pairs if str(place or "").strip()]


def _canvas(prompts: Sequence[str], places: Sequence[str]) -> str:
    """The boxes as HTML; one whose corners are no numbers is left out."""
    drawn = []
    for colour, prompt, place in zip(COLOURS, prompts, places, strict=False):
        try:
            left, top, right, bottom = (float(corner) for corner in place.split(","))
        except ValueError:
            continue
        where = f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"
        drawn.append(f'<div style="{where};border-color:{colour};background:{colour}">{text(prompt or "?")}</div>')
    return "".join(drawn) or "<p>Drag a box here</p>"
