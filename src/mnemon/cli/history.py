"""The commands along a library's history: preview, diff, reorder, and commit and discard for a staged candidate."""

from pathlib import Path
from typing import Annotated

import typer

from mnemon.cli.options import DEFAULT_LIBRARY, At, BaseAt, Json, LibraryPath, WeightsOption, opened_base
from mnemon.cli.printing import number, out, print_json, progress, row_table, say, table

LAYERS_SHOWN = 10


def add_to(app: typer.Typer) -> None:
    for command in (preview, diff, reorder, commit, discard):
        app.command(command.__name__)(command)


def preview(
    library: LibraryPath = DEFAULT_LIBRARY,
    to: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("preview.html"),
    every: Annotated[
        bool, typer.Option("--every", help="After every commit, side by side; as many times as long.")
    ] = False,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Instead of the usual three; {} stands for the concept.")
    ] = None,
    num_images_per_prompt: Annotated[
        int, typer.Option("--num-images-per-prompt", "--number", "-n", min=1, help="Images of each prompt.")
    ] = 2,
    at: At = None,
    base_at: BaseAt = None,
    weights: WeightsOption = None,
    json_output: Json = False,
) -> None:
    """Generate all concepts on one HTML page, with the same prompts and seeds every time.

    Example: mnemon preview --every --out preview.html
    """
    from mnemon import api
    from mnemon.api.previewing import PROMPTS
    from mnemon.library import Library

    where = opened_base(str(base_at) if base_at else None, library, weights)
    with progress("generating revisions") as bar:
        page = api.preview(
            Library.open(library, at), to, base=where, every=every,
            prompts=prompt or PROMPTS, number=num_images_per_prompt, on_state=lambda done, total: bar(done, total, {}),
        )  # fmt: skip
    if json_output:
        print_json({"page": str(page)})
    else:
        say(f"Written: {page}")


def diff(
    before: Annotated[int, typer.Argument(metavar="A", min=0, help="A revision; 0 is the empty library.")],
    after: Annotated[int, typer.Argument(metavar="B", min=0, help="Another one.")],
    library: LibraryPath = DEFAULT_LIBRARY,
    base_at: BaseAt = None,
    weights: WeightsOption = None,
    json_output: Json = False,
) -> None:
    """What changed from revision A to revision B: concepts, their scores, and how far the weights moved.

    The distance of a layer is ||W_B - W_A|| / ||W_A||, of its weights with all concepts in them.

    Example: mnemon diff 1 3
    """
    from mnemon import api

    where = opened_base(str(base_at) if base_at else None, library, weights)
    difference = api.diff(library, before, after, base=where)
    if json_output:
        print_json(vars(difference))
        return
    for word, names in (("added", difference.added), ("removed", difference.removed)):
        say(f"{word}: {' '.join(f'<{name}>' for name in names) or 'none'}")
    if difference.scores:
        columns = ("concept", *(f"{kind} {revision}" for kind in ("identity", "image") for revision in (before, after)))
        kinds = ("identity_alignment", "image_alignment")
        lines = [
            (name, *(number(one) for kind in kinds for one in own[kind])) for name, own in difference.scores.items()
        ]
        out.print(table(columns, lines))
    if difference.layers is None:
        say("The method composes for every prompt: there is no single change of the weights to compare.")
        return
    shown = list(difference.layers.items())[:LAYERS_SHOWN]
    for layer, distance in shown:
        say(f"  {distance:9.3%}  {layer}")
    if len(difference.layers) > len(shown):
        say(f"  and {len(difference.layers) - len(shown)} layers that moved less (all with --json)")


def reorder(
    names: Annotated[list[str], typer.Argument(help="All concepts, in the new order.")],
    to: Annotated[Path, typer.Option("--out", "-o", help="The new library's folder.")],
    library: LibraryPath = DEFAULT_LIBRARY,
    json_output: Json = False,
) -> None:
    """Write a new library with the same concepts in another order; the old one stays as it is.

    Example: mnemon reorder tom sip --out other-order
    """
    from mnemon import api

    made = api.reorder(library, to, names)
    if json_output:
        print_json({"library": str(to), "concepts": made.names(), "state": made.revision})
    else:
        say(f"{to}: {' '.join(f'<{name}>' for name in made.names())}. Measure it with `mnemon evaluate -l {to}`.")


def commit(
    library: LibraryPath = DEFAULT_LIBRARY,
    anyway: Annotated[bool, typer.Option("--anyway", help="In spite of the forgetting.")] = False,
    json_output: Json = False,
) -> None:
    """Commit what `learn --max-forgetting` staged; without --anyway only show what it would cost."""
    from mnemon import api
    from mnemon.library import Library, commit_candidate, read_candidate

    opened = Library.open(library)
    if api.finish_commit(opened):
        say(f"An interrupted commit was finished; the library is at revision {opened.revision}.")
        return
    candidate = read_candidate(opened)
    if not json_output:
        out.print(row_table(candidate.row, opened))
    if not anyway:
        raise api.BudgetExceeded(candidate, staged=True)
    revision = commit_candidate(opened)
    if json_output:
        print_json({"concepts": candidate.names, "state": revision, "row": candidate.row})
    else:
        say(f"{' '.join(f'<{name}>' for name in candidate.names)} committed; the library is at revision {revision}.")


def discard(library: LibraryPath = DEFAULT_LIBRARY, json_output: Json = False) -> None:
    """Drop what `learn --max-forgetting` staged; the library stays as it is."""
    from mnemon.library import Library, discard_candidate

    discard_candidate(Library.open(library))
    if json_output:
        print_json({"discarded": True})
    else:
        say("Dropped; the library is as it was.")
