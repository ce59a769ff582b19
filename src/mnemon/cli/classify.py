"""`mnemon classify`: classes learned task after task on a frozen vision transformer."""

from pathlib import Path
from typing import Annotated

import typer

from mnemon.cli.classify_bench import bench
from mnemon.cli.options import At, Json, LibraryPath, Settings, setting_of
from mnemon.cli.printing import out, print_json, progress, say, table

app = typer.Typer(
    help="Continual image classification: new classes, folder by folder, on a frozen vision transformer.",
    no_args_is_help=True,
)
app.command()(bench)
LIBRARY = Path("field-guide")
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        "-b",
        help="A transformers folder or hub id; by default that of the library, for a new one world, the built-in one.",
    ),
]


@app.command()
def learn(
    folder: Annotated[Path, typer.Argument(help="A folder with one folder of images per class.")],
    library: LibraryPath = LIBRARY,
    name: Annotated[str | None, typer.Option(help="What to call the task; the folder's name by default.")] = None,
    backbone: BackboneName = None,
    method: Annotated[str | None, typer.Option(help="For a new library; stamina by default.")] = None,
    set_: Settings = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    json_output: Json = False,
) -> None:
    """Learn the classes of a folder, after those that the library has.

    Example: mnemon classify learn birds/ --library field-guide
    """
    from mnemon import classification as c

    chosen = c.method_of(method, dict(map(setting_of, set_ or []))) if method or set_ else None
    task = c.read_task(folder, name)
    with progress(f"learning {task.name}") as bar:
        revision = c.learn_classes(library, task, backbone=backbone, method=chosen, seed=seed, on_step=bar)
    if json_output:
        print_json({"revision": revision, "task": task.name, "classes": list(task.classes)})
    else:
        say(f"'{task.name}' learned: {len(task.classes)} classes; the library is at revision {revision}.")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    library: LibraryPath = LIBRARY,
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 1,
    backbone: BackboneName = None,
    at: At = None,
    json_output: Json = False,
) -> None:
    """Say what is in images."""
    from mnemon import classification as c

    rows = c.predict(library, images, backbone=backbone, at=at, top=top)
    if json_output:
        print_json(rows)
        return
    for row in rows:
        pairs = zip(row["classes"], row["shares"], strict=True)
        say(f"{row['image']}: " + ", ".join(f"{label} {share:.0%}" for label, share in pairs))


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A folder with one folder of test images per class.")],
    library: LibraryPath = LIBRARY,
    backbone: BackboneName = None,
    json_output: Json = False,
) -> None:
    """Measure every revision on test images: what was learned, and what was forgotten."""
    from mnemon import classification as c

    result = c.evaluate_classes(library, c.read_examples(folder, "test"), c.backbone_of(library, backbone))
    if json_output:
        print_json({"rows": result.rows, "figures": result.figures, "unknown": result.unknown})
        return
    names = list(result.rows[max(result.rows)]["concepts"]) if result.rows else []
    rows = [
        (revision, *(f"{row['concepts'][name]['accuracy']:.1%}" if name in row["concepts"] else "" for name in names))
        for revision, row in result.rows.items()
    ]
    out.print(table(("revision", *names), rows))
    for key, value in result.figures.items():
        say(f"  {key:36} {'–' if value is None else f'{value:.1%}'}")
    if result.unknown:
        say(f"Not learned, so not counted: {', '.join(result.unknown)}")


@app.command()
def show(library: LibraryPath = LIBRARY, at: At = None, json_output: Json = False) -> None:
    """The tasks of a library and their classes."""
    from mnemon.classification.library import ClassLibrary

    opened = ClassLibrary.open(library, at)
    tasks = [
        {"task": name, "revision": entry.number, "classes": entry.facts["classes"], "images": entry.facts["images"],
         "stored_bytes": entry.stored_bytes}
        for name, entry in opened.concepts().items()
    ]  # fmt: skip
    if json_output:
        print_json({"backbone": opened.base_name, "method": opened.method_name, "tasks": tasks})
        return
    say(f"{opened.method_name} on {opened.base_name}, revision {opened.revision}")
    rows = [
        (one["revision"], one["task"], one["images"], one["stored_bytes"], ", ".join(one["classes"])) for one in tasks
    ]
    out.print(table(("revision", "task", "images", "bytes", "classes"), rows))


@app.command()
def export(
    to: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    library: LibraryPath = LIBRARY,
    backbone: BackboneName = None,
    at: At = None,
) -> None:
    """Write a plain transformers image classifier, which opens without mnemon."""
    from mnemon import classification as c

    say(f"Written: {c.export_classifier(library, to, c.backbone_of(library, backbone), at)}")
