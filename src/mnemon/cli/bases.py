"""`mnemon base`: the built-in base, its figures and its recipe."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mnemon.cli.printing import note, print_json, progress, say
from mnemon.errors import MnemonError

app = typer.Typer(no_args_is_help=True, help="The built-in base: its figures, and the recipe that makes it.")


@app.command()
def info(json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Size and figures of the built-in base, each beside the gate it had to pass."""
    from mnemon.world import base_folder
    from mnemon.world.recipe.gates import GATES

    folder = base_folder()
    if not (folder / "figures.json").is_file():
        raise MnemonError("The built-in base is not in this installation: build it with `mnemon base build`.")
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))["figures"]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if json_output:
        print_json({"bytes": size, "figures": figures})
        return
    say(f"The built-in base in {folder}: {size / 1e6:.1f} MB")
    for name, gate in GATES.items():
        value = figures.get(name)
        verdict = (
            "not measured" if value is None else f"{value:.3f} ({'reaches' if value >= gate else 'misses'} {gate})"
        )
        say(f"  {name:32} {verdict}")


@app.command()
def build(
    to: Annotated[Path | None, typer.Option("--out", help="Folder to write; the package's own by default.")] = None,
    work: Annotated[Path, typer.Option(help="Images and checkpoints, about 2 GB; the same folder resumes.")] = Path(
        "base-work"
    ),
    seed: Annotated[int, typer.Option(help="Another seed gives another base.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Go on after a stage that missed its gate.")] = False,
) -> None:
    """Train the built-in base from scratch: about two hours on two cores; it resumes after an interruption."""
    from mnemon.api import single_lora_identity_ratio
    from mnemon.world import base_folder
    from mnemon.world.recipe.build import Recipe, build
    from mnemon.world.recipe.card import write_card

    folder = to or base_folder()
    work.mkdir(parents=True, exist_ok=True)
    build(folder, work, Recipe(seed=seed), force=force)
    with progress("single LoRA") as on_step:
        ratio = single_lora_identity_ratio(str(folder), on_step=on_step)
    write_card(folder, {"single_lora_identity_ratio": ratio})
    note(f"Written to {folder}.")
