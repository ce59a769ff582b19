"""`mnemon plan`: memory before anything is loaded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemon.cli.options import Json, WeightsOption, setting_of
from mnemon.cli.printing import note, out, print_json, say, table

if TYPE_CHECKING:
    from mnemon.planning import Estimate, Levers, Plan

APART = ("earlier concepts", "all concepts", "latents of photos")
"""Rows of an estimate that are not there when it is measured."""


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
        bool, typer.Option("--offload-text", help="Text encoders rest in main memory while images are drawn.")
    ] = False,
    levers: Annotated[bool, typer.Option("--levers", help="What each further lever would save; slow.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="On a GPU: do the rehearsed steps with random weights, and compare.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Memory that learning and drawing take, told from the configs alone: nothing is fetched or loaded.

    Takes up to a minute for large bases. A concept learned on top of earlier ones is planned for.

    Example: mnemon plan --base sdxl --method lora --weights bf16 --batch 1 --checkpointing
    """
    from mnemon.methods import method_from
    from mnemon.planning import Levers, Plan, measured

    made = Plan(base, method_from(method, dict(setting_of(pair) for pair in set_ or [])), resolution)
    pulled = Levers(weights, gradient_checkpointing, batch_size, gradient_accumulation_steps, offload_text)
    truth = measured(made, pulled) if measure else {}
    estimate = made.estimate(pulled)
    further = made.further(pulled) if levers else []
    if json_output:
        print_json(_as_json(made, pulled, estimate, further, truth))
        return
    _show(made, pulled, estimate, further, truth)


def _show(
    made: "Plan", levers: "Levers", estimate: "Estimate", further: list[tuple[str, int]], truth: Mapping[str, int]
) -> None:
    from mnemon.planning import cards

    say(
        f"{made.outline.name} ({made.outline.family.family}), {made.method.name}, {made.resolution} pixels, "
        f"weights in {levers.weights}, batch {made.batch_size(levers)}"
        + (f" in {levers.gradient_accumulation_steps} parts" if levers.gradient_accumulation_steps > 1 else "")
        + (", checkpointing" if levers.checkpointing else "")
        + f": {estimate.trained:,} trained parameters"
    )
    titles = {"learning": estimate.learning, "drawing an image": estimate.drawing}
    for title, rows in titles.items():
        shown = [(name, _gb(size)) for name, size in rows.items()]
        out.print(table((title, "GB"), [*shown, ("at the peak", _gb(sum(rows.values())))]))
        say("")
    for title, size in truth.items():
        say(f"{title}: measured {_gb(size)} GB, estimated {_gb(_comparable(getattr(estimate, title)))} GB")
    fitting = ", ".join(f"{card} GB" for card in cards(estimate.peak))
    say(f"Fits into: {fitting or 'none of the usual cards'}")
    if further:
        out.print(table(("with this lever too", "peak, GB"), [(option, _gb(peak)) for option, peak in further]))
    note("Estimated from the configs, 10 % of a card left free: docs/plan.md says how.")


def _as_json(
    made: "Plan", levers: "Levers", estimate: "Estimate", further: list[tuple[str, int]], truth: Mapping[str, int]
) -> dict[str, Any]:
    from mnemon.planning import cards

    return {
        "base": made.outline.name,
        "family": made.outline.family.family,
        "source": list(made.outline.source),
        "method": made.method.name,
        "resolution": made.resolution,
        "levers": {
            "weights": levers.weights,
            "checkpointing": levers.checkpointing,
            "batch": made.batch_size(levers),
            "accumulate": levers.gradient_accumulation_steps,
            "offload_text": levers.offload_text,
        },
        "trained": estimate.trained,
        "learning": dict(estimate.learning),
        "drawing": dict(estimate.drawing),
        "peak": estimate.peak,
        "fits": cards(estimate.peak),
        "further": dict(further),
        "measured": {
            part: {"truth": size, "estimate": _comparable(getattr(estimate, part))} for part, size in truth.items()
        },
    }


def _comparable(rows: Mapping[str, int]) -> int:
    return sum(size for name, size in rows.items() if name not in APART)


def _gb(size: int) -> str:
    return f"{size / 2**30:.2f}"
