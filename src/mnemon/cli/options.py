"""Options that commands share, those of `learn`, and how their values are parsed."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mnemon.cli.config import as_defaults
from mnemon.errors import MnemonError
from mnemon.settings import DEFAULT_METHOD

PHOTOS, TRAINING, MEMORY = "Photos", "Training", "Memory and speed"
SCORES, WATCHING = "Scores", "Looking on"
"""The groups in which `--help` shows options."""
DEFAULT_LIBRARY = Path("mnemon-library")
LibraryPath = Annotated[Path, typer.Option("--library", "-l", envvar="MNEMON_LIBRARY", help="The library's folder.")]
At = Annotated[int | None, typer.Option("--at", help="A past revision instead of the newest.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, for programs.")]
BaseAt = Annotated[
    Path | None, typer.Option("--base-at", help="Where the library's base lies now, if its folder has moved.")
]
WeightsOption = Annotated[
    Literal["fp32", "bf16", "8bit", "4bit"] | None,
    typer.Option(
        help="Precision of the base's weights; 4bit needs the extra quant. By default as the library was learned last; "
        "else fp32 on a CPU, and on a GPU what suits the base.",
    ),
]
Memory = Annotated[
    str | None, typer.Option(metavar="24GB", help="Plan for a GPU of this memory; by default for the one that is here.")
]
NewBase = Annotated[str | None, typer.Option(help="world, a diffusers folder or a hub id, for a new library.")]
NewMethod = Annotated[str | None, typer.Option(help=f"For a new library; {DEFAULT_METHOD} by default.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, e.g. rank=8.")
]

Photos = Annotated[
    Path | None, typer.Argument(help="A folder of photos of one thing, or a JSON list of several concepts.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=as_defaults,
        help="A TOML file with options and concepts (`mnemon init` writes one); the command line goes before it.",
    ),
]
Training = Annotated[
    list[str] | None,
    typer.Option("--training", metavar="KEY=VALUE", help="A setting of the training, e.g. lr_scheduler=cosine."),
]
Name = Annotated[str | None, typer.Option(help="What to call it; the folder's name by default.")]
ClassNoun = Annotated[
    str | None, typer.Option("--class-noun", "--noun", help="Its class, such as dog. Leave out for a style.")
]
References = Annotated[
    Path | None, typer.Option(help="Other photos of it, kept out of training, to score on.", rich_help_panel=SCORES)
]
Steps = Annotated[
    int | None, typer.Option(help="Training steps; the method's default without.", rich_help_panel=TRAINING)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", "--batch", help="Images per step.", rich_help_panel=TRAINING)
]
Seed = Annotated[int | None, typer.Option(help="Of all random numbers.", rich_help_panel=TRAINING)]
Fit = Annotated[Literal["crop", "pad"], typer.Option(help="Crop or pad photos to squares.", rich_help_panel=PHOTOS)]
Flip = Annotated[bool, typer.Option("--flip", help="Train on mirrored photos too.", rich_help_panel=PHOTOS)]
RandomCrop = Annotated[
    bool, typer.Option("--random-crop", help="Train on crops at random places.", rich_help_panel=PHOTOS)
]
NumClassImages = Annotated[
    int,
    typer.Option(
        "--num-class-images",
        "--prior",
        min=0,
        help="Class images to generate and train on too (prior preservation).",
        rich_help_panel=TRAINING,
    ),
]
MixedPrecision = Annotated[
    Literal["no", "bf16", "fp16"] | None,
    typer.Option("--mixed-precision", "--precision", help="Mixed precision; fp16 needs a GPU.", rich_help_panel=MEMORY),
]
GradientAccumulationSteps = Annotated[
    int | None,
    typer.Option(
        "--gradient-accumulation-steps",
        "--accumulate",
        help="Compute each step's batch in so many parts: less memory.",
        rich_help_panel=MEMORY,
    ),
]
GradientCheckpointing = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        "--checkpointing/--no-checkpointing",
        help="Recompute activations: less memory, more time.",
        rich_help_panel=MEMORY,
    ),
]
MaxGradNorm = Annotated[float | None, typer.Option(help="Clip the gradients of a step to this norm.")]
SnrGamma = Annotated[
    float | None,
    typer.Option("--snr-gamma", "--min-snr", help="Gamma of min-SNR weighting, usually 5.", rich_help_panel=TRAINING),
]
MaskedLoss = Annotated[
    bool,
    typer.Option(
        "--masked-loss",
        help="Train where the photos' masks are white only (a-masklabel.png beside a.jpg).",
        rich_help_panel=TRAINING,
    ),
]
Together = Annotated[
    int,
    typer.Option(
        min=1, help="Of a list: concepts trained in the same steps, if the method allows it.", rich_help_panel=TRAINING
    ),
]
PreviewEvery = Annotated[
    int | None, typer.Option(help="Steps between preview images; 0 for none.", rich_help_panel=WATCHING)
]
PreviewPage = Annotated[
    Path | None,
    typer.Option(
        "--preview-page", help="After each commit, generate all concepts on this HTML page.", rich_help_panel=WATCHING
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Log losses for TensorBoard (extra: track).", rich_help_panel=WATCHING)
]
Score = Annotated[
    Literal["all", "forecast", "new", "none"],
    typer.Option(
        help="Which concepts are sampled for scores: all; the new, those that moved by the forecast of forgetting, "
        "and two in turn; new ones only; or none, and then there are no scores.",
        rich_help_panel=SCORES,
    ),
]
NoScore = Annotated[bool, typer.Option("--no-score", help="The same as --score none.", rich_help_panel=SCORES)]
Until = Annotated[
    str | None,
    typer.Option(
        metavar="identity:SHARE",
        help="Early stopping: when identity alignment with --references reaches this share of its ceiling, such as "
        "identity:0.95.",
        rich_help_panel=SCORES,
    ),
]
CheckEvery = Annotated[
    int,
    typer.Option(
        min=1,
        help="Steps from one check of --until to the next. Each generates 8 images (16 on bases for photographs) in "
        "20 denoising steps.",
        rich_help_panel=SCORES,
    ),
]
MaxForgetting = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Stage the concept instead of committing it if the identity score of an earlier one falls by more than "
        "this below its best, such as 0.1; decide with commit or discard.",
        rich_help_panel=SCORES,
    ),
]


def scoring(score: str, no_score: bool) -> dict[str, Any]:
    """`scored` and `resample` of the API, from --score and --no-score."""
    return {"scored": False} if no_score or score == "none" else {"resample": score}


def setting_of(pair: str, example: str = "--set rank=8") -> tuple[str, Any]:
    """A key and its value, from KEY=VALUE; values are JSON or else text."""
    key, equals, text = pair.partition("=")
    if not equals:
        raise MnemonError(f"'{example.partition(' ')[0]} {pair}' has no value: write it as '{example}'.")
    try:
        return key, json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return key, text


def share_of(until: str) -> float:
    """The share of `identity:SHARE`."""
    kind, _, text = until.partition(":")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if kind != "identity" or not share > 0:
        raise MnemonError(f"'--until {until}' is no goal: write the share of the ceiling as '--until identity:0.95'.")
    return share


def opened_base(base: str | None, library: Path, weights: Any, offload_text: bool = False) -> Any:
    """The base, opened with these options; without any its name, to be opened later."""
    from mnemon import api

    return base if weights is None and not offload_text else api.open_base(base, library, weights, offload_text)


def memory_of(text: str) -> float:
    """Gigabytes of "24GB", "24 GB" or "24"."""
    try:
        size = float(text.lower().removesuffix("gb").strip())
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise MnemonError(f"'--memory {text}' is no amount of memory: write it in gigabytes as '--memory 24GB'.")
    return size
