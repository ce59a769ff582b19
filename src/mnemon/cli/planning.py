"""`mnemon plan`: memory before anything is loaded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemon.cli.options import Json, WeightsOption, setting_of
from mnemon.cli.printing import note, out, print_json, say, table

if TYPE_CHECKING:
    from mnemon.planning import Estimate, MemoryOptions, Plan

NOT_MEASURED = ("earlier concepts", "all concepts", "latents of photos")
"""Rows of an estimate that a measurement does not hold."""


def add_to(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    base: Annotated[
        str,
        typer.Option(help="world, a diffusers folder, or sdxl, sd3.5-medium, flux2-klein-4b, z-image."),
    ] = "world",
    method: Annotated[str, typer.Option(help="A method; see `mnemon methods`.")] = "stamina",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, e.g. rank=8.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images; the base's own by default.")] = None,
    weights: WeightsOption = "fp32",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", "--checkpointing", help="Recompute activations: less memory.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch", min=1, help="Images per step; the method's own by default."),
    ] = None,
    gradient_accumulation_steps: Annotated[
        int,
        typer.Option(
            "--gradient-accumulation-steps", "--accumulate", min=1, help="Compute each step in so many parts."
        ),
    ] = 1,
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
    from mnemon.planning import MemoryOptions, Plan, measure_on_gpu

    memory_plan = Plan(base, method_from(method, dict(setting_of(pair) for pair in set_ or [])), resolution)
    options = MemoryOptions(weights, gradient_checkpointing, batch_size, gradient_accumulation_steps, offload_text)
    measured = measure_on_gpu(memory_plan, options) if measure else {}
    estimate = memory_plan.estimate(options)
    savings = memory_plan.savings(options) if levers else []
    if json_output:
        print_json(_as_json(memory_plan, options, estimate, savings, measured))
    else:
        _show(memory_plan, options, estimate, savings, measured)


def _show(
    plan: "Plan",
    options: "MemoryOptions",
    estimate: "Estimate",
    savings: list[tuple[str, int]],
    measured: Mapping[str, int],
) -> None:
    from mnemon.planning import fitting_gpus

    parts = options.gradient_accumulation_steps
    say(
        f"{plan.configs.name} ({plan.configs.family.family}), {plan.method.name}, {plan.resolution} pixels, "
        f"weights in {options.weights}, batch {plan.batch_size(options)}"
        + (f" in {parts} parts" if parts > 1 else "")
        + (", gradient checkpointing" if options.gradient_checkpointing else "")
        + f": {estimate.num_trained:,} trained parameters"
    )
    for title, rows in {"training": estimate.training, "sampling an image": estimate.sampling}.items():
        sizes = [(name, _gb(size)) for name, size in rows.items()]
        out.print(table((title, "GB"), [*sizes, ("at the peak", _gb(sum(rows.values())))]))
        say("")
    for title, size in measured.items():
        say(f"{title}: measured {_gb(size)} GB, estimated {_gb(_comparable(getattr(estimate, title)))} GB")
    fitting = ", ".join(f"{size} GB" for size in fitting_gpus(estimate.peak))
    say(f"Fits into: {fitting or 'none of the common GPUs'}")
    if savings:
        out.print(table(("with this option too", "peak, GB"), [(option, _gb(peak)) for option, peak in savings]))
    note("Estimated from the configs, 10 % of a GPU left free: docs/plan.md says how.")


def _as_json(
    plan: "Plan",
    options: "MemoryOptions",
    estimate: "Estimate",
    savings: list[tuple[str, int]],
    measured: Mapping[str, int],
) -> dict[str, Any]:
    from mnemon.planning import fitting_gpus

    keys = {"training": "learning", "sampling": "drawing"}
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
        },
        "trained": estimate.num_trained,
        **{key: dict(getattr(estimate, part)) for part, key in keys.items()},
        "peak": estimate.peak,
        "fits": fitting_gpus(estimate.peak),
        "further": dict(savings),
        "measured": {
            keys[part]: {"truth": size, "estimate": _comparable(getattr(estimate, part))}
            for part, size in measured.items()
        },
    }


def _comparable(rows: Mapping[str, int]) -> int:
    return sum(size for name, size in rows.items() if name not in NOT_MEASURED)


def _gb(size: int) -> str:
    return f"{size / 2**30:.2f}"
