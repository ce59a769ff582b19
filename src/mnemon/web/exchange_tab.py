"""Take along: concepts as files for other tools, and files of other tools as concepts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mnemon.web import exchange
from mnemon.web.handlers import clear, markdown
from mnemon.web.workspace import Workspace


@dataclass
class ExchangeTab:
    """The tab, inside a `gr.Tab`."""

    workspace: Workspace

    def build(self) -> None:
        with gr.Row():
            with gr.Column():
                self._export()
            with gr.Column():
                self._import()
        self._wire()

    def _export(self) -> None:
        gr.Markdown("### Take along")
        self.names = gr.CheckboxGroup(
            [], label="Concepts", info="All of them if none is chosen", elem_id="export-names"
        )
        self.kind = gr.Radio([], label="For", elem_id="export-kind")
        self.export = gr.Button("Export", variant="primary", elem_id="export")
        self.archive = gr.File(label="Download", visible=False, interactive=False, elem_id="archive")
        self.exported = gr.Markdown()

    def _import(self) -> None:
        gr.Markdown("### Bring in")
        self.files = gr.File(
            label="Drop a LoRA, an embedding, or one of each", file_count="multiple", file_types=[".safetensors"]
        )
        self.name = gr.Textbox(label="Name", info="The file's name if empty")
        self.noun = gr.Textbox(label="What kind of thing is it?", placeholder="dog")
        self.trigger = gr.Textbox(label="Words that call it", info="For a LoRA without an embedding, such as 'sks'")
        self.bring = gr.Button("Import", elem_id="import")
        self.imported = gr.Markdown()

    def _wire(self) -> None:
        self.export.click(
            clear(self._take), [self.names, self.kind], [self.archive, self.exported], api_visibility="private"
        )
        self.bring.click(
            clear(self._bring),
            [self.files, self.name, self.noun, self.trigger],
            self.imported,
            api_visibility="private",
        )

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.names, self.kind]

    def show(self) -> list[Any]:
        """The library as it is now."""
        opened = self.workspace.opened()
        kinds = exchange.forms_of(opened.family) if opened else list(exchange.FORMS)
        choices = [
            (f"{exchange.FORMS[kind]}{' (most people want this)' if kind == kinds[0] else ''}", kind) for kind in kinds
        ]
        return [gr.CheckboxGroup(choices=opened.names() if opened else []), gr.Radio(choices=choices, value=kinds[0])]

    def _take(self, names: Sequence[str], kind: str) -> list[Any]:
        archive, said = exchange.take_along(self.workspace, names, kind)
        return [gr.File(value=str(archive), visible=True), markdown(said)]

    def _bring(self, files: Sequence[str] | None, name: str, noun: str, trigger: str) -> str:
        return markdown(exchange.bring_in(self.workspace, [Path(file) for file in files or ()], name, noun, trigger))
