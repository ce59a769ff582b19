"""`mnemon plan`: memory before anything is loaded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemon.cli.options import Json, WeightsOption, memory_of, setting_of
from mnemon.cli.printing import note, out, print_json, say, table
from mnemon.settings import DEFAULT_METHOD

if TYPE_CHECKING:
    from mnemon.planning import MemoryOptions, Plan

NOT_MEASURED = ("earlier concepts", "all concepts", "latents of photos")
"""Rows of an estimate that a measurement does not hold."""
PARTS = (("training", "learning"), ("sampling", "drawing"))
"""An estimate's parts and their JSON keys."""


def add_to(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    base: Annotated[
        str,
        typer.Option(help="world, a diffusers folder, or sdxl, sd3.5-medium, flux2-klein-4b, z-image."),
    ] = "world",
    method: Annotated[str, typer.Option(help="A method; see `mnemon methods`.")] = DEFAULT_METHOD,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, e.g. rank=8.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images; the base's own by default.")] = None,
    weights: WeightsOption = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", "--checkpointing", help="Recompute activations: less memory.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch", min=1, help="Images per step; the method's own by default."),
    ] = None,
    gradient_accumulation_steps: Annotated[
        int | None,
        typer.Option(
            "--gradient-accumulation-steps", "--accumulate", min=1, help="Compute each step in so many parts."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="24GB", help="What `learn` picks for a GPU of this memory, in place of what is not set."),
    ] = None,
    offload_text: Annotated[
        bool, typer.Option("--offload-text", help="Keep text encoders in main memory while images are sampled.")
    ] = False,
    levers: Annotated[bool, typer.Option("--levers", help="What each further option would save; slow.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="On a GPU: run the same steps with random weights, and compare.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Memory that training and sampling take, estimated from the configs alone: nothing is downloaded or loaded.

    Takes up to a minute for large bases. The estimate is for a concept learned after earlier ones.

    Example: mnemon plan --base sdxl --method lora --weights bf16 --batch-size 1 --gradient-checkpointing
    """
    from mnemon.methods import method_from
    from mnemon.planning import MemoryOptions, Plan, choose, measure_on_gpu, wishes

    memory_plan = Plan(base, method_from(method, dict(setting_of(pair) for pair in set_ or [])), resolution)
    if memory is not None:
        given = {
            "weights": weights,
            "batch_size": batch_size,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "gradient_checkpointing": gradient_checkpointing or None,
            "offload_text": offload_text or None,
        }
        choice = choose(memory_plan, *wishes(memory_plan, given), memory_of(memory))
        options = choice.options
        note(f"In {memory}: {choice}.")
    else:
        parts = gradient_accumulation_steps or 1
        options = MemoryOptions(weights or "fp32", gradient_checkpointing, batch_size, parts, offload_text)
    measured = measure_on_gpu(memory_plan, options) if measure else {}
    value = _as_json(memory_plan, options, measured, memory_plan.savings(options) if levers else [])
    (print_json if json_output else _show)(value)


def _show(value: Mapping[str, Any]) -> None:
    options = value["levers"]
    say(
        f"{value['base']} ({value['family']}), {value['method']}, {value['resolution']} pixels, "
        f"weights in {options['weights']}, batch {options['batch']}"
        + (f" in {options['accumulate']} parts" if options["accumulate"] > 1 else "")
        + (", gradient checkpointing" if options["checkpointing"] else "")
        + f": {value['trained']:,} trained parameters"
    )
    for title, rows in {"training": value["learning"], "sampling an image": value["drawing"]}.items():
        sizes = [(name, _gb(size)) for name, size in rows.items()]
        out.print(table((title, "GB"), [*sizes, ("at the peak", _gb(sum(rows.values())))]))
        say("")
    for part, sizes in value["measured"].items():
        say(f"{part}: measured {_gb(sizes['truth'])} GB, estimated {_gb(sizes['estimate'])} GB")
    say(f"Fits into: {', '.join(f'{size} GB' for size in value['fits']) or 'none of the common GPUs'}")
    if value["further"]:
        rows = [(option, _gb(peak)) for option, peak in value["further"].items()]
        out.print(table(("with this option too", "peak, GB"), rows))
    note("Estimated from the configs, 10 % of a GPU left free: docs/plan.md says how.")


def _as_json(
    plan: "Plan", options: "MemoryOptions", measured: Mapping[str, int], savings: list[tuple[str, int]]
) -> dict[str, Any]:
    from mnemon.planning import fitting_gpus

    estimate = plan.estimate(options)
    parts = {key: dict(getattr(estimate, part)) for part, key in PARTS}
    comparable = {key: sum(rows[name] for name in rows if name not in NOT_MEASURED) for key, rows in parts.items()}
    return {
        "base": plan.configs.name,
        "family": plan.configs.family.family,
        "source": list(plan.configs.source),
        "method": plan.method.name,
        "resolution": plan.resolution,
        "levers": {
            "weights": options.weights,
            "checkpointing": options.gradient_checkpointing,
            "batch": plan.batch_size(options),
            "accumulate": options.gradient_accumulation_steps,
            "offload_text": options.offload_text,
            "images_at_once": options.images_at_once,
        },
        "trained": estimate.num_trained,
        **parts,
        "peak": estimate.peak,
        "fits": fitting_gpus(estimate.peak),
        "further": dict(savings),
        "measured": {key: {"truth": measured[part], "estimate": comparable[key]} for part, key in PARTS if measured},
    }


def _gb(size: int) -> str:
    return f"{size / 2**30:.2f}"
