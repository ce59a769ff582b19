"""Teach: drop photos, name the thing, watch it being learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import gradio as gr
import pandas as pd

from mnemon.errors import MnemonError
from mnemon.names import safe_name
from mnemon.web import estimate, uploads
from mnemon.web.handlers import BUTTONS, clear, markdown, number, text
from mnemon.web.training import Progress, Request, Trainings
from mnemon.web.uploads import Dropped, Use
from mnemon.web.workspace import Workspace

COLUMNS = ["photo", "use", "caption", "remarks"]
IMAGE_TYPES = [".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif"]


@dataclass
class TeachTab:
    """The tab, inside a `gr.Tab`."""

    workspace: Workspace
    trainings: Trainings

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=3):
                self._photos()
            with gr.Column(scale=2):
                self._form()
        self._progress()
        self._wire()

    def _photos(self) -> None:
        self.files = gr.File(
            label="1. Drop photos of one thing", file_count="multiple", file_types=IMAGE_TYPES, elem_id="photos"
        )
        self.summary = gr.Markdown(uploads.summary([]))
        self.preview = gr.Gallery(
            buttons=BUTTONS,
            label="Photos",
            columns=6,
            height=190,
            object_fit="cover",
            visible=False,
            interactive=False,
            elem_id="photo-gallery",
        )
        self.table = gr.Dataframe(
            headers=COLUMNS,
            datatype="str",
            label="Use: train, hold out or leave out. Captions may stay empty; with one, write the <name> in it.",
            static_columns=[0, 3],
            interactive=True,
            wrap=True,
            visible=False,
            elem_id="photo-table",
        )
        self.dropped = gr.State([])

    def _form(self) -> None:
        self.name = gr.Textbox(label="2. Name", placeholder="rex", info="What prompts call it: <rex>", elem_id="name")
        self.noun = gr.Textbox(
            label="What kind of thing is it?", placeholder="dog", info="Leave empty for a style", elem_id="noun"
        )
        with gr.Accordion("More settings", open=False):
            self.steps = gr.Number(label="Steps", info="The method's default if empty", precision=0, elem_id="steps")
            self.seed = gr.Number(label="Seed", value=0, precision=0)
            self.scored = gr.Checkbox(
                label="Score every concept afterwards", value=True, info="What was kept and what was forgotten"
            )
        self.plan = gr.Button("What will it take?", size="sm")
        self.plan_text = gr.Markdown()
        self.learn = gr.Button("3. Learn", variant="primary", elem_id="learn")

    def _progress(self) -> None:
        self.status = gr.HTML(elem_id="status")
        with gr.Row():
            self.stop = gr.Button("Stop (what is learned is kept)", visible=False, elem_id="stop")
            self.resume = gr.Button("Resume", visible=False, variant="primary", elem_id="resume")
        with gr.Row():
            self.samples = gr.Gallery(
                buttons=BUTTONS,
                label="As it is learned",
                columns=4,
                height=300,
                visible=False,
                interactive=False,
                elem_id="samples",
            )
            self.losses = gr.LinePlot(x="step", y="loss", title="Loss", height=220, visible=False)
        self.timer = gr.Timer(1.0, active=False)
        self.ended = gr.State("")

    @property
    def shown(self) -> list[Any]:
        """What `show` fills."""
        return [self.status, self.stop, self.resume, self.samples, self.losses, self.timer, self.ended]

    def _wire(self) -> None:
        private = {"api_visibility": "private"}
        looked = [self.dropped, self.summary, self.preview, self.table]
        self.files.change(clear(self._look), self.files, looked, **private)
        self.table.input(clear(self._use), [self.dropped, self.table], [self.dropped, self.summary], **private)
        asked = [self.name, self.noun, self.steps, self.seed, self.scored]
        self.plan.click(clear(self._plan), [self.dropped, self.steps], self.plan_text, **private)
        self.learn.click(clear(self._learn), [self.dropped, self.table, *asked], [self.name, *self.shown], **private)
        self.stop.click(clear(self._stop), None, self.shown, **private)
        self.resume.click(clear(self._resume), None, self.shown, **private)
        self.timer.tick(clear(self.show), None, self.shown, show_progress="hidden", **private)

    def _look(self, files: Sequence[str] | None) -> list[Any]:
        dropped = uploads.look_at([Path(file) for file in files or ()], self.workspace.side)
        rows = [[one.name, one.use, "", one.refused or "; ".join(one.hints)] for one in dropped]
        shown = [(str(one.path), one.name) for one in dropped if one.refused is None]
        return [
            dropped,
            markdown(uploads.summary(dropped)),
            gr.Gallery(value=shown, visible=bool(shown)),
            gr.Dataframe(value=rows, visible=bool(rows)),
        ]

    def _use(self, dropped: Sequence[Dropped], table: pd.DataFrame) -> tuple[list[Dropped], str]:
        chosen = _chosen(dropped, table)
        return chosen, markdown(uploads.summary(chosen))

    def _plan(self, dropped: Sequence[Dropped], steps: float | None) -> str:
        return markdown(estimate.in_words(self.workspace, number(steps, "the steps")))

    def _learn(
        self,
        dropped: Sequence[Dropped],
        table: pd.DataFrame,
        name: str,
        noun: str,
        steps: float | None,
        seed: float,
        scored: bool,
    ) -> list[Any]:
        chosen, called = _chosen(dropped, table), _named(name)
        if opened := self.workspace.opened():
            opened.check_name(called)
        self.trainings.check_free()
        captions = dict(zip((one.path for one in chosen), map(str, table["caption"]), strict=False)) if chosen else {}
        _, held_out = uploads.keep(self.workspace.photos, called, chosen, captions)
        request = Request(
            called,
            noun.strip() or None,
            number(steps, "the steps"),
            number(seed, "the seed", 0) or 0,
            bool(scored),
            held_out is not None,
        )
        self.trainings.start(request)
        return [called, *self.show()]

    def _stop(self) -> list[Any]:
        if self.trainings.current:
            self.trainings.current.stop()
        return self.show()

    def _resume(self) -> list[Any]:
        unfinished = self.trainings.unfinished()
        if not unfinished:
            raise MnemonError("Nothing is left to resume.")
        self.trainings.start(unfinished[0])
        return self.show()

    def show(self) -> list[Any]:
        """Where the training is: also for a page that was loaded anew."""
        training, unfinished = self.trainings.current, self.trainings.unfinished()
        progress = training.progress if training else None
        running = progress is not None and progress.running
        samples = [(str(file), _sample_name(file)) for file in training.previews()[:8]] if training else []
        losses = pd.DataFrame(progress.losses if progress else [], columns=["step", "loss"])
        label = f"Resume <{unfinished[0].name}>" if unfinished else "Resume"
        return [
            status(progress, [one.name for one in unfinished]),
            gr.Button(visible=running),
            gr.Button(label, visible=bool(unfinished) and not running),
            gr.Gallery(value=samples, visible=bool(samples)),
            gr.LinePlot(value=smoothed(losses), visible=len(losses) > 2),
            gr.Timer(active=running),
            "" if running or progress is None else progress.message,
        ]


def _named(name: str) -> str:
    """The concept's name from what was typed: "mein_hund" of "Mein Hund".

    Raises:
        MnemonError: nothing, or nothing that could be a name.
    """
    if not name.strip():
        raise MnemonError("Give it a name first, such as 'rex': prompts will call it <rex>.")
    if (safe := safe_name(name)) is None:
        raise MnemonError(f"'{name}' has no letter that a name could have: give it one, such as 'rex'.")
    return safe


def _chosen(dropped: Sequence[Dropped], table: pd.DataFrame) -> list[Dropped]:
    """With the uses that the table says.

    Raises:
        MnemonError: a use that there is not.
    """
    chosen = []
    for one, use in zip(dropped, table["use"], strict=False):
        wanted = str(use).strip().lower()
        if wanted not in get_args(Use):
            raise MnemonError(f"'{use}' is no use of a photo: write 'train', 'hold out' or 'leave out'.")
        chosen.append(replace(one, use=cast(Use, wanted)))
    return chosen


def _sample_name(file: Path) -> str:
    return f"step {int(file.stem.split('-')[1])}"


def smoothed(losses: pd.DataFrame) -> pd.DataFrame:
    """At most 200 points: the mean of so many steps each that the curve can be read."""
    width = max(len(losses) // 200, 1)
    return losses.groupby(losses.index // width).mean() if len(losses) else losses


def status(progress: Progress | None, unfinished: Sequence[str]) -> str:
    """Where a training is, as HTML that is read aloud when it changes."""
    if progress is None or (unfinished and not progress.running):
        waiting = ", ".join(f"<{name}>" for name in unfinished)
        kept = f"{waiting} is not finished: its steps so far are kept." if unfinished else ""
        said = progress.message if progress else kept
        return f'<p role="status">{text(said)}</p>'
    share = progress.step / progress.steps if progress.steps else 0.0
    bar = f'<progress max="1" value="{share:.4f}" aria-label="steps"></progress>'
    return f'<p role="status">{text(_said(progress))}</p>{bar if progress.running else ""}'


def _said(progress: Progress) -> str:
    if progress.phase == "preparing":
        return f"<{progress.name}>: loading the model and the photos ..."
    if progress.phase == "learning":
        left = progress.seconds_left
        loss = f", loss {progress.losses[-1][1]:.4f}" if progress.losses else ""
        remaining = f", {estimate.duration(left)} left" if left is not None else ""
        return f"<{progress.name}>: step {progress.step} of {progress.steps}{loss}{remaining}"
    if progress.phase == "scoring":
        done, of = progress.scoring
        return f"<{progress.name}> is learned; scoring, {done} of {of} sets of images"
    return progress.message
