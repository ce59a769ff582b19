"""`mnemon bench`: every method on the same concepts, in several orders, with the whole score matrix of each."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from mnemon.cli.options import WeightsOption, setting_of
from mnemon.cli.printing import err, note, print_json, progress, say
from mnemon.errors import MnemonError

_QUIET = 60.0  # seconds between lines where there is no bar


def add_to(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    sequence: Annotated[
        str, typer.Option(help="world-6, world-10, world-50, world-100, one of these with -dev, or a folder.")
    ] = "world-10",
    methods: Annotated[str, typer.Option(help="Names with commas between, or all.")] = "all",
    orders: Annotated[int, typer.Option(min=1, help="Orders of the concepts; the first is the sequence's own.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the training.")] = 1,
    to: Annotated[Path, typer.Option("--out", "-o", help="Results folder; the same command goes on in it.")] = Path(
        "benchmark"
    ),
    base: Annotated[str, typer.Option(help="world, a diffusers folder or a hub id.")] = "world",
    weights: WeightsOption = None,
    protocol: Annotated[
        str,
        typer.Option(help="paper: each method's own settings; level: the same token, steps, batch and rank for all."),
    ] = "paper",
    alone: Annotated[
        bool | None,
        typer.Option(
            "--alone/--no-alone", help="Each method's own bound: every concept also alone. By default with level."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.KEY=VALUE", help="A setting, before the protocol's: stamina.rank=8."),
    ] = None,
    num_images: Annotated[
        int, typer.Option("--num-images", "--pictures", min=1, help="Images of a concept in each cell of the matrix.")
    ] = 16,
    eval_at: Annotated[
        str,
        typer.Option(
            "--eval-at", "--points", help="After how many concepts all are scored; after the last one always."
        ),
    ] = "1,10,25,50",
    num_inference_steps: Annotated[
        int, typer.Option("--num-inference-steps", "--draw-steps", min=1, help="Denoising steps of an image.")
    ] = 20,
    guidance_scale: Annotated[float, typer.Option(help="Of classifier-free guidance; 1 switches it off.")] = 4.0,
    scheduler: Annotated[
        str | None, typer.Option(help="DDIM or DPMSolverMultistep; Euler for flows. The base's default without.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What should not be in the images.")] = "",
    first_seed: Annotated[
        int, typer.Option(min=0, help="Seed of each concept's first image; the next count on.")
    ] = 1000,
    eval_prompts: Annotated[
        Path | None, typer.Option(help="A text file of prompts for every concept, one a line, with {} in its place.")
    ] = None,
    hold_out: Annotated[
        bool, typer.Option("--hold-out/--no-hold-out", help="Keep photos for the scores; else train and score on all.")
    ] = True,
    batch_size: Annotated[int, typer.Option("--batch-size", "--batch", min=1, help="Images sampled at once.")] = 32,
    engine: Annotated[
        str, typer.Option(help="here (this process), processes (of this machine) or ray (a cluster; extra: cluster).")
    ] = "here",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; with ray the cores of a job.")] = 1,
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster: auto, host:port or ray://host:port; without, one is started here."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")] = False,
) -> None:
    """Run methods over a sequence of concepts and score what each knows after each; a killed run goes on.

    Example: mnemon bench --sequence world-10 --methods stamina,lora --orders 3 --out runs/first
    """
    from mnemon.benchmark import engine_named, plan, run_bench
    from mnemon.benchmark.sources import templates_from
    from mnemon.evaluation import EvalSettings
    from mnemon.methods import METHODS

    templates = templates_from(eval_prompts) if eval_prompts else ()
    scores = EvalSettings(
        num_images, first_seed, guidance_scale, num_inference_steps, batch_size, scheduler, negative_prompt, templates
    )
    settings, numbers = settings_by_method(set_ or []), _eval_at(eval_at)
    jobs = plan(
        to.resolve(), sequence, names_of(methods, METHODS), orders, seeds, settings, base, scores, numbers,
        protocol=protocol, alone=alone, hold_out=hold_out, weights=weights,
    )  # fmt: skip
    chosen = engine_named(engine, workers, address)
    with progress("starting") as bar:
        ended = run_bench(jobs, chosen, Watch(bar, len(jobs)))
    say_result(to, ended, json_output)
    if ended.failed:
        raise typer.Exit(1)


def say_result(to: Path, ended: Any, json_output: bool) -> None:
    page = to / ended.page.name
    if json_output:
        found = {"out": str(to), "jobs": ended.jobs, "done_before": ended.before, "failed": ended.failed}
        print_json(found | {"page": str(page), "summary": str(to / "summary.json")})
        return
    say(f"{ended.jobs - len(ended.failed)} of {ended.jobs} jobs done in {to}.")
    for title, failure in ended.failed.items():
        say(f"Failed: {title}: {failure}")
    say(f"The report: {page}")


class Watch:
    """Shows how far all jobs are: on the bar in a terminal, else in a line now and then."""

    def __init__(self, bar: Any, jobs: int) -> None:
        self._bar, self._jobs, self._ended = bar, jobs, 0
        self._done: dict[Path, float] = {}  # concepts, by job
        self._before: dict[Path, float] = {}
        self._began = self._said = time.monotonic()

    def __call__(self, job: Any, progress: Any) -> None:
        if progress is None:
            self._ended += 1
            self._say(f"{job.title}: ended")
            return
        self._before.setdefault(job.folder, progress.done)
        self._done[job.folder] = progress.done
        text = f"{self._ended} of {self._jobs} jobs, {job.title}: {progress.doing}{self._left(progress.total)}"
        self._bar(sum(self._done.values()), self._jobs * progress.total, {})
        self._bar.rename(text)
        if time.monotonic() - self._said > _QUIET:
            self._say(text)

    def _left(self, concepts: int) -> str:
        """What the rest takes if it goes on as since the start."""
        done = sum(self._done.values()) - sum(self._before.values())
        if done <= 0:
            return ""
        minutes = (time.monotonic() - self._began) / done * (self._jobs * concepts - sum(self._done.values())) / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"

    def _say(self, text: str) -> None:
        if not err.is_terminal:
            self._said = time.monotonic()
            note(text)


def names_of(text: str, known: Iterable[str]) -> list[str]:
    """Names with commas between; all that are known for "all"."""
    return list(known) if text == "all" else [name.strip() for name in text.split(",") if name.strip()]


def _eval_at(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip() not in ("", "last"))
    except ValueError:
        raise MnemonError(
            f"'--eval-at {text}' are no numbers of concepts: write them as '--eval-at 1,10,25'."
        ) from None


def settings_by_method(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """METHOD.KEY=VALUE by method."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        method, dot, rest = pair.partition(".")
        if not dot or "=" in method:
            raise MnemonError(f"'--set {pair}' names no method: write it as '--set stamina.rank=8'.")
        key, value = setting_of(rest)
        found.setdefault(method, {})[key] = value
    return found
