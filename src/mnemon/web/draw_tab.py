"""Draw: prompts with the library's concepts, regions, and the gallery of what was drawn."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from mnemon.errors import MnemonError
from mnemon.sampling import read_metadata
from mnemon.web import drawing
from mnemon.web.drawing import MOST_IMAGES, MOST_STEPS, Wish
from mnemon.web.handlers import BUTTONS, clear, markdown, number
from mnemon.web.region_rows import RegionRows
from mnemon.web.workspace import Workspace

NEWEST, DEFAULT = "the newest", "the default"


@dataclass
class DrawTab:
    """The tab, inside a `gr.Tab`."""

    workspace: Workspace
    regions: RegionRows = field(init=False)

    def __post_init__(self) -> None:
        self.regions = RegionRows(self.workspace)

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2):
                self._form()
            with gr.Column(scale=3):
                self._images()
        self._wire()

    def _form(self) -> None:
        self.prompt = gr.Textbox(
            label="Prompt", placeholder="a photo of <rex> dog on the beach", lines=2, elem_id="prompt"
        )
        self.chips = gr.Dataset(
            components=["textbox"], samples=[], label="Concepts: click to add one to the prompt", elem_id="chips"
        )
        self.strength = gr.Slider(0.1, 1.5, value=1.0, step=0.1, label="Strength of the concept that is added next")
        self.draw = gr.Button("Draw", variant="primary", elem_id="draw")
        self.stop = gr.Button("Stop", visible=False, elem_id="stop-drawing")
        with gr.Accordion("Regions", open=False):
            self.regions.build()
        with gr.Accordion("More settings", open=False):
            self.negative = gr.Textbox(label="Not in the image", elem_id="negative")
            self.number = gr.Slider(1, MOST_IMAGES, value=4, step=1, label="Images", elem_id="number")
            self.seed = gr.Number(label="Seed of the first image", value=0, precision=0, elem_id="seed")
            self.steps = gr.Slider(1, MOST_STEPS // 10, value=30, step=1, label="Denoising steps")
            self.guidance = gr.Slider(1, 15, value=4, step=0.5, label="Guidance: how closely the prompt is followed")
            self.sampler = gr.Dropdown(
                [DEFAULT], value=DEFAULT, label="Sampler", info="More to choose from after the first image"
            )
            self.at = gr.Dropdown([NEWEST], value=NEWEST, label="Revision of the library")

    def _images(self) -> None:
        self.gallery = gr.Gallery(
            buttons=BUTTONS, label="Images, the newest first", columns=4, height="auto", object_fit="contain",
            interactive=False, elem_id="gallery",
        )  # fmt: skip
        self.chosen = gr.Markdown("Choose an image to see how it was made.")
        self.again = gr.Button("Again with these settings", visible=False, size="sm", elem_id="again")
        self.wish = gr.State(None)

    def _wire(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private"}
        settings = [
            self.prompt,
            self.negative,
            self.seed,
            self.number,
            self.steps,
            self.guidance,
            self.sampler,
            self.at,
        ]
        asked = [*settings, self.regions.per_region, *self.regions.inputs]
        shown = [self.gallery, self.draw, self.stop]
        drawing_event = self.draw.click(clear(self._draw), asked, shown, show_progress="minimal", **private)
        submitted = self.prompt.submit(clear(self._draw), asked, shown, show_progress="minimal", **private)
        self.stop.click(self._stopped, None, shown, cancels=[drawing_event, submitted], **private)
        self.chips.click(
            clear(self._add), [self.chips, self.prompt, self.strength], self.prompt, show_progress="hidden", **private
        )
        self.gallery.select(clear(self._select), None, [self.chosen, self.again, self.wish], **private)
        self.again.click(
            clear(self._again),
            self.wish,
            [self.prompt, self.negative, self.seed, self.number, self.steps, self.guidance],
            **private,
        )

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.chips, self.at, self.sampler, self.gallery, *self.regions.prompts]

    def show(self) -> list[Any]:
        """The library and the gallery as they are now."""
        called = self.workspace.called()
        opened = self.workspace.opened()
        revisions = [NEWEST, *(str(number) for number in range(opened.revision - 1, 0, -1))] if opened else [NEWEST]
        return [
            gr.Dataset(samples=[[name] for name in called.values()], visible=bool(called)),
            gr.Dropdown(choices=revisions, value=NEWEST),
            gr.Dropdown(choices=[DEFAULT, *self.workspace.samplers]),
            self._gallery(),
            *(gr.Dropdown(choices=self.regions.choices()) for _ in self.regions.prompts),
        ]

    def _draw(
        self, prompt: str, negative: str, seed: float, count: float, steps: float, guidance: float, sampler: str,
        at: str, per_region: bool, *regions: str,
    ) -> Iterator[list[Any]]:  # fmt: skip
        if not prompt.strip():
            raise MnemonError("Write what to draw first, such as 'a photo of <rex> dog on the beach'.")
        wish = Wish(
            prompt.strip(), negative.strip(), number(seed, "the seed", 0) or 0, number(count, "the images", 4) or 4,
            number(steps, "the steps", 30) or 30, float(guidance), self.regions.texts(*regions), bool(per_region),
            None if sampler == DEFAULT else sampler, None if at == NEWEST else int(at),
        )  # fmt: skip
        yield [gr.skip(), gr.Button("Drawing ...", interactive=False), gr.Button(visible=True)]
        try:
            for _ in drawing.draw(self.workspace, wish):
                yield [self._gallery(), gr.skip(), gr.skip()]
        except Exception as error:
            yield self._stopped()
            raise error
        yield self._stopped()

    def _stopped(self) -> list[Any]:
        return [self._gallery(), gr.Button("Draw", interactive=True), gr.Button(visible=False)]

    def _gallery(self) -> Any:
        return gr.Gallery(value=[(str(file), text) for file, text in drawing.gallery(self.workspace)])

    def _add(self, chip: list[str], prompt: str, strength: float) -> str:
        called = str(chip[0])
        if strength != 1:
            called = called.replace(">", f":{strength:g}>", 1)
        return f"{prompt.rstrip()} {called}".strip() if prompt.strip() else f"a photo of {called}"

    def _select(self, event: gr.SelectData) -> list[Any]:
        files = drawing.gallery(self.workspace)
        place = event.index if isinstance(event.index, int) else -1
        if not 0 <= place < len(files):
            raise MnemonError("That image is not there any more: load the page again.")
        file, _ = files[place]
        metadata = read_metadata(file)
        facts = [
            f"seed {metadata.seed}", f"{metadata.num_inference_steps} steps", f"guidance {metadata.guidance_scale:g}",
            metadata.sampler, f"revision {metadata.revision}" if metadata.revision is not None else "the bare base",
            *(f"region {region}" for region in metadata.regions), file.name,
        ]  # fmt: skip
        negative = f"\n\nNot in it: {markdown(metadata.negative_prompt)}" if metadata.negative_prompt else ""
        return [
            f"{markdown(metadata.prompt)}\n\n{markdown(' · '.join(facts))}{negative}",
            gr.Button(visible=True),
            drawing.wish_of(metadata),
        ]

    def _again(self, wish: Wish | None) -> list[Any]:
        if wish is None:
            raise MnemonError("Choose an image first.")
        return [wish.prompt, wish.negative_prompt, wish.seed, wish.number, wish.steps, wish.guidance_scale]
