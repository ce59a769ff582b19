"""The commands that exchange concepts with other tools: export, import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mnemon.cli.options import (
    DEFAULT_LIBRARY,
    At,
    BaseAt,
    Json,
    LibraryPath,
    MaxForgetting,
    NoScore,
    Score,
    WeightsOption,
    opened_base,
    scoring,
)
from mnemon.cli.printing import note, out, print_json, progress, row_table, say
from mnemon.settings import DEFAULT_METHOD

if TYPE_CHECKING:
    from mnemon.export import ExportResult

Kind = Literal["diffusers", "kohya", "comfy", "embedding", "folder", "checkpoint"]


def add_to(app: typer.Typer) -> None:
    app.command("export")(export)
    app.command("import")(import_)


def export(
    names: Annotated[list[str] | None, typer.Argument(help="Concepts; all of the library without any.")] = None,
    library: LibraryPath = DEFAULT_LIBRARY,
    to: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")] = Path("export"),
    kind: Annotated[
        Kind,
        typer.Option(
            "--as",
            help="LoRA and embeddings for diffusers, for kohya's readers (A1111, ComfyUI), or for ComfyUI alone (FLUX, "
            "SD 3, Qwen-Image, Z-Image); the embeddings alone; a whole diffusers folder; a single-file checkpoint.",
        ),
    ] = "diffusers",
    rank: Annotated[int | None, typer.Option(help="Highest rank of the LoRA; the rest is cut off.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Share of the change that the LoRA keeps, such as 0.99, at the lowest rank."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits.")] = False,
    images: Annotated[
        int, typer.Option("--images", "--pictures", min=0, help="Of each concept, generated for the model card.")
    ] = 0,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Upload to the Hugging Face hub too.")] = None,
    at: At = None,
    base_at: BaseAt = None,
    weights: WeightsOption = None,
    json_output: Json = False,
) -> None:
    """Write concepts as files that other tools read, with a model card that shows how to use them.

    Several concepts become one change of the weights. Changes that are not low-rank are stored exactly, and larger,
    unless --rank or --energy is given; the relative error of the file is then printed.

    Example: mnemon export rex --as kohya --out rex-for-comfy
    """
    from mnemon import api
    from mnemon.export import RankSelection
    from mnemon.library import Library

    opened, ranks = Library.open(library, at), RankSelection(rank, energy)
    where = opened_base(str(base_at) if base_at else None, library, weights)
    made = api.export_concepts(
        opened, to, names or (), kind=kind, base=where, rank_selection=ranks, half=half, images=images, repository=push
    )
    lora = made.lora
    if json_output:
        print_json(_as_json(made, push))
        return
    say(f"{', '.join(f'<{name}>' for name in made.concepts)} as {kind} in {made.folder}:")
    for file in made.files:
        say(f"  {file}")
    if lora is not None and lora.ranks:
        say(f"The LoRA has rank {max(lora.ranks.values())} in {len(lora.ranks)} layers.")
    for text in made.notes:
        note(text)
    say(f"Pushed to https://huggingface.co/{push}" if push else f"How to use it: {made.folder / 'README.md'}")


def import_(
    files: Annotated[list[Path], typer.Argument(help="A LoRA, an embedding, or one of each (safetensors).")],
    library: LibraryPath = DEFAULT_LIBRARY,
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name by default.")] = None,
    class_noun: Annotated[
        str | None, typer.Option("--class-noun", "--noun", help="Its class, such as dog. Leave out for a style.")
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="The words that prompt a LoRA without an embedding; <name> then stands for them.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Skip what cannot be imported.")] = False,
    base: Annotated[str | None, typer.Option(help="world, a diffusers folder or a hub id, for a new library.")] = None,
    weights: WeightsOption = None,
    method: Annotated[str | None, typer.Option(help=f"For a new library; {DEFAULT_METHOD} by default.")] = None,
    references: Annotated[
        Path | None, typer.Option(help="A folder of photos of it to score against; without, only others are scored.")
    ] = None,
    score: Score = "all",
    no_score: NoScore = False,
    max_forgetting: MaxForgetting = None,
    json_output: Json = False,
) -> None:
    """Import a LoRA or an embedding trained elsewhere into the library as a concept, and score all concepts so far.

    Formats: kohya, PEFT, diffusers (new and old), ComfyUI, OneTrainer, ai-toolkit, LyCORIS (LoHa, LoKr, full),
    cloneofsimo, and A1111's embeddings. What cannot be imported is reported, never dropped silently.

    Example: mnemon import rex.safetensors --name rex --class-noun dog --trigger sks
    """
    from mnemon import api
    from mnemon.data import concept_from_folder
    from mnemon.library import Library

    with progress("reading photos", after=2.0) as bar:
        given = concept_from_folder(references, name, class_noun, on_photo=bar.count) if references else None
    where = opened_base(base, library, weights)
    with progress("importing") as bar:
        try:
            made = api.import_concept(
                library, files, name, class_noun, trigger=trigger, partial=partial, base=where, method=method,
                references=given, **scoring(score, no_score), max_forgetting=max_forgetting, on_images=bar.scored,
            )  # fmt: skip
        except api.BudgetExceeded as exceeded:
            if not json_output:
                out.print(row_table(exceeded.row, Library.open(library)))
            raise
    if json_output:
        counts = {"state": made.revision, "layers": made.layers, "vectors": made.vectors}
        read = {"references": given.report.to_json()} if given and given.report else {}
        said = {"words": made.words, "left": list(made.left), "notes": list(made.notes), "row": made.row}
        print_json({"concept": made.concept, **counts, **said, **read})
        return
    say(f"<{made.concept}>: {made.layers} layers changed, {made.vectors} vectors; library revision {made.revision}.")
    if made.words:
        say(f"It has no embedding: <{made.concept}> stands for the words '{made.words}' (others with --trigger).")
    for text in made.notes:
        note(text)
    if made.row is not None:
        out.print(row_table(made.row, Library.open(library)))


def _as_json(made: "ExportResult", pushed: str | None) -> dict[str, Any]:
    lora = made.lora
    facts = lora and {
        "layers": len(lora.ranks) + len(lora.whole),
        "whole": len(lora.whole),
        "rank": max(lora.ranks.values(), default=0),
        "error": lora.error,
    }
    value = {"folder": str(made.folder), "files": list(made.files), "concepts": list(made.concepts), "lora": facts}
    return {**value, "notes": list(made.notes), "pushed": pushed}
