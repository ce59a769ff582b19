"""The commands that work on a library: learn, generate, evaluate, methods."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding

from mnemon.cli.learning import learn
from mnemon.cli.options import DEFAULT_LIBRARY, At, BaseAt, Json, LibraryPath, WeightsOption, opened_base
from mnemon.cli.printing import note, number, out, print_json, progress, row_table, say, table
from mnemon.cli.records import check, list_, remove, show
from mnemon.errors import MnemonError
from mnemon.settings import DEFAULT_METHOD


def add_to(app: typer.Typer) -> None:
    """Register the commands in the order in which a newcomer meets them."""
    for command in (learn, generate, list_, show, evaluate, remove, check, methods):
        app.command(command.__name__.rstrip("_"))(command)


def generate(
    prompt: Annotated[list[str], typer.Argument(help='Prompts; <name> stands for a concept: "a photo of <rex> dog".')],
    library: LibraryPath = DEFAULT_LIBRARY,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for the PNG files.")] = Path("pictures"),
    num_images_per_prompt: Annotated[
        int, typer.Option("--num-images-per-prompt", "--number", "-n", min=1, help="Images of each prompt.")
    ] = 4,
    seed: Annotated[int, typer.Option(help="Of the first image; the next ones count on.")] = 0,
    negative_prompt: Annotated[
        str, typer.Option("--negative-prompt", "--negative", help="What should not be in the image.")
    ] = "",
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance-scale",
            "--guidance",
            help="Of classifier-free guidance; 1 switches it off. By default what suits the base, as below.",
        ),
    ] = None,
    num_inference_steps: Annotated[
        int | None, typer.Option("--num-inference-steps", "--steps", min=1, help="Denoising steps.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "--batch", min=1, help="Images sampled at once.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="DDIM or DPMSolverMultistep; Euler for flows. The base's default without.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BOX:PROMPT", help='A prompt for a region: "0,0,0.5,1:<rex>" (left, top, right, bottom in 0..1).'
        ),
    ] = None,
    auto_layout: Annotated[
        bool,
        typer.Option(
            "--auto-layout", "--auto", help="Give each concept of the prompt a region, spread over the image."
        ),
    ] = False,
    feather: Annotated[float, typer.Option(min=0, max=1, help="Width of the regions' edges, share of a side.")] = 0.0,
    per_region: Annotated[
        bool, typer.Option("--per-region", "--apart", help="Generate each region on its own first (collage + SDEdit).")
    ] = False,
    at: At = None,
    base: Annotated[str | None, typer.Option(help="Draw from a bare base instead of a library.")] = None,
    base_at: BaseAt = None,
    weights: WeightsOption = None,
    offload_text: Annotated[
        bool, typer.Option("--offload-text", help="Large text encoders stay in main memory while images are sampled.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Draw images. Each PNG says how it was made.

    Example: mnemon generate "a photo of <rex> dog in the snow" -n 4
    """
    from mnemon import api
    from mnemon.library import Library
    from mnemon.sampling.regions import region_from_text

    if region and auto_layout:
        raise MnemonError("--auto-layout places the concepts itself: leave out --region, or --auto-layout.")
    opened = None if base else Library.open(library, at)
    regions = [region_from_text(text) for text in region or []]
    where = opened_base(base or (str(base_at) if base_at else None), library, weights, offload_text)
    files: list[str] = []
    with progress("sampling") as bar, _saying_what_is_saved(files, len(prompt) * num_images_per_prompt):
        api.generate(
            opened, prompt, base=where, negative_prompt=negative_prompt, seed=seed,
            num_images_per_prompt=num_images_per_prompt, guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps, batch_size=batch_size, regions=regions,
            auto_layout=auto_layout, feather=feather, per_region=per_region, out=to, scheduler=scheduler,
            on_step=lambda done, total: bar(done, total, {}), on_file=lambda file: files.append(str(file)),
        )  # fmt: skip
    if json_output:
        print_json(files)
    else:
        say(f"{len(files)} images: {files[0]} to {files[-1]}" if len(files) > 1 else f"1 image: {files[0]}")


@contextmanager
def _saying_what_is_saved(files: list[str], total: int) -> Iterator[None]:
    """After Ctrl-C: what there is, and how to have the rest."""
    try:
        yield
    except KeyboardInterrupt:
        saved = f" ({files[0]} to {files[-1]})" if files else ""
        note(f"{len(files)} of {total} images are saved{saved}: for the rest, ask again with a later --seed.")
        raise


def evaluate(
    library: LibraryPath = DEFAULT_LIBRARY,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for plots and the page.")] = Path("evaluation"),
    again: Annotated[bool, typer.Option("--again", help="Score revisions again that have scores.")] = False,
    base_at: BaseAt = None,
    weights: WeightsOption = None,
    json_output: Json = False,
) -> None:
    """Fill the whole score matrix, and write plots and one HTML page."""
    from mnemon import api
    from mnemon.evaluation.matrix import figures, matrix_from_rows
    from mnemon.library import Library
    from mnemon.report.library_page import write_evaluation

    with progress("scoring revisions") as bar:
        where = opened_base(str(base_at) if base_at else None, library, weights)
        api.evaluate(library, base=where, again=again, on_revision=lambda done, total: bar(done, total, {}))
    opened = Library.open(library)
    page = write_evaluation(opened, to)
    matrix = matrix_from_rows(opened.rows(), "identity_alignment")
    if json_output:
        print_json({"rows": opened.rows(), "figures": figures(matrix), "page": str(page)})
        return
    if opened.rows():
        out.print(row_table(opened.rows()[max(opened.rows())], opened))
    for key, value in figures(matrix).items():
        say(f"  {key:24} {number(value)}")
    say(f"Written: {page}")


def methods(
    name: Annotated[str | None, typer.Argument(help="One of them: its settings and their defaults too.")] = None,
    json_output: Json = False,
) -> None:
    """The methods: what each trains and stores, and what it can do."""
    from mnemon.methods import METHODS, method_from

    chosen = METHODS if name is None else {name: type(method_from(name))}
    described = [_described(one) for one in chosen.values()]
    if json_output:
        print_json(described if name is None else {**described[0], "settings": _settings(chosen[name])})
        return
    for row in described:
        say(f"{row['name']} (the default)" if row["default"] else row["name"])
        for key in METHOD_FACTS:
            value = {True: "yes", False: "no"}.get(row[key], row[key])
            out.print(Padding(f"{key.replace('_', ' ') + ':'} {value}", (0, 0, 0, 2)), highlight=False, markup=False)
    if name is not None:
        rows = [(key, str(one["default"]), one["meaning"]) for key, one in _settings(chosen[name]).items()]
        out.print(table(("setting (--set)", "default", "meaning"), rows))
    else:
        out.print(f"\nWhich one? {WHICH}", highlight=False, markup=False)


METHOD_FACTS = ("trains", "stores", "fuses", "order_free", "can_remove", "source")
WHICH = (
    f"{DEFAULT_METHOD}, if you add concepts to one model over time; single or lora-compose, if each concept may have "
    "weights of its own, switched from prompt to prompt; cns, to change the base least; joint, if all photos are there "
    "at once. `mnemon methods NAME` shows the settings of one."
)


def _described(method: Any) -> dict[str, Any]:
    facts = {key: getattr(method, key) for key in METHOD_FACTS}
    return {"name": method.name, **facts, "default": method.name == DEFAULT_METHOD}


def _settings(method: Any) -> dict[str, dict[str, Any]]:
    """Each setting's default and meaning."""
    from dataclasses import fields

    from mnemon.settings_docs import attribute_docs

    docs = attribute_docs(method)
    return {field.name: {"default": field.default, "meaning": docs[field.name]} for field in fields(method)}
