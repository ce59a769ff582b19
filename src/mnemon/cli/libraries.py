"""The commands that work on a library: learn, generate, list, show, remove, evaluate, methods."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.padding import Padding

from mnemon.cli.printing import fact, note, number, out, print_json, progress, row_table, say, table
from mnemon.errors import MnemonError

LibraryPath = Annotated[Path, typer.Option("--library", "-l", help="The library's folder.")]
At = Annotated[int | None, typer.Option("--at", help="Look at a past state instead of the newest.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, for programs.")]
BaseAt = Annotated[
    Path | None, typer.Option("--base-at", help="Where the library's base lies now, if its folder has moved.")
]
WeightsOption = Annotated[
    Literal["fp32", "bf16", "8bit", "4bit"],
    typer.Option(help="How the base's weights are kept; 4bit needs the extra quant."),
]
DEFAULT_LIBRARY = Path("mnemon-library")


def add_to(app: typer.Typer) -> None:
    """Register the commands in the order in which a newcomer meets them."""
    for command in (learn, generate, list_, show, evaluate, remove, methods):
        app.command(command.__name__.rstrip("_"))(command)


def learn(
    photos: Annotated[
        Path, typer.Argument(help="A folder of photos of one thing, or a JSON list of several concepts.")
    ],
    library: LibraryPath = DEFAULT_LIBRARY,
    name: Annotated[str | None, typer.Option(help="What to call it; the folder's name by default.")] = None,
    noun: Annotated[str | None, typer.Option(help="Its class, such as dog. Leave out for a style.")] = None,
    base: Annotated[str | None, typer.Option(help="world, a diffusers folder or a hub id, for a new library.")] = None,
    weights: WeightsOption = "fp32",
    method: Annotated[str | None, typer.Option(help="For a new library; stamina by default.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, e.g. rank=8.")
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help="Other photos of it, kept out of training, to score on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; the method's own number by default.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step.")] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    fit: Annotated[Literal["crop", "pad"], typer.Option(help="Crop or pad photos to squares.")] = "crop",
    flip: Annotated[bool, typer.Option("--flip", help="Train on mirrored photos too.")] = False,
    random_crop: Annotated[bool, typer.Option("--random-crop", help="Train on crops at random places.")] = False,
    prior: Annotated[
        int, typer.Option(min=0, help="Class pictures to draw first and train on too (prior preservation).")
    ] = 0,
    precision: Annotated[Literal["no", "bf16", "fp16"], typer.Option(help="Mixed precision; fp16 needs a GPU.")] = "no",
    accumulate: Annotated[int, typer.Option(help="Compute each step in so many parts: less memory.")] = 1,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, more time.")
    ] = False,
    min_snr: Annotated[float | None, typer.Option(help="Gamma of min-SNR weighting, usually 5.")] = None,
    together: Annotated[
        int,
        typer.Option(min=1, help="Of a list, concepts that learn in the same steps, where the method lets them."),
    ] = 6,
    preview_every: Annotated[int, typer.Option(help="Steps between preview pictures; 0 for none.")] = 0,
    preview_page: Annotated[
        Path | None, typer.Option("--preview-page", help="After each commit, draw all concepts on this HTML page.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log losses for TensorBoard (extra: track).")
    ] = False,
    score: Annotated[
        bool, typer.Option(help="Measure every concept so far afterwards; a concept learned without has no scores.")
    ] = True,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="identity:SHARE",
            help="Stop early, when its identity reaches this share of the ceiling on --references, such as "
            "identity:0.95.",
        ),
    ] = None,
    check_every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps from one check of --until to the next. Each draws 8 pictures (16 on bases for photographs) in "
            "20 denoising steps.",
        ),
    ] = 50,
    max_forgetting: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Keep the concept aside instead, if the identity score of an earlier one falls by more than this "
            "below its best, such as 0.1; decide with commit or discard.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Teach the library one more concept, and see what it still knows of all.

    Example: mnemon learn photos/rex --name rex --noun dog
    """
    from mnemon import api
    from mnemon.data import concept_from_folder, concepts_from_list
    from mnemon.library import Library
    from mnemon.training import TrainingSettings

    training = TrainingSettings(
        steps=steps, batch=batch, seed=seed, mixed_precision=precision, accumulate=accumulate,
        gradient_checkpointing=checkpointing, min_snr=min_snr, preview_every=preview_every, tensorboard=tensorboard,
    )  # fmt: skip
    several = photos.is_file() and photos.suffix.lower() == ".json"
    if several and (name or noun or references):
        raise MnemonError("A list file names its concepts itself: leave out --name, --noun and --references.")
    if until and not references:
        raise MnemonError("--until looks at photos that are not trained on: give some with --references.")
    goal = api.Goal(_share(until), check_every) if until else None
    squares = api.PhotoSettings(fit, flip, random_crop)
    concepts = concepts_from_list(photos) if several else [concept_from_folder(photos, name, noun)]
    held_out = concept_from_folder(references, concepts[0].name, concepts[0].noun) if references else None
    chosen: Any = _method(method, set_ or [], library)
    if several:
        for concept in (one for one in concepts if one.name in _known(library)):
            note(f"'{concept.name}' is in the library already: passed over.")
        concepts = [one for one in concepts if one.name not in _known(library)]
    where = _opened(base, library, weights)
    results = []
    for group in _groups(concepts, chosen, library, together):
        names = [concept.name for concept in group]
        with progress("learning " + " ".join(f"<{name}>" for name in names)) as bar:
            try:
                outcome = api.learn_together(
                    library, group, base=where, method=chosen, references=[held_out] * len(group), photos=squares,
                    training=training, prior=prior, scored=score, max_forgetting=max_forgetting, until=goal,
                    on_step=bar, on_pictures=bar.scored,
                )  # fmt: skip
            except api.Refused as refused:
                if not json_output:
                    out.print(row_table(refused.row, Library.open(library)))
                raise
            if preview_page:
                bar.rename("drawing all concepts")
                api.preview(library, preview_page, base=where)
        results += [{"concept": name, **vars(outcome)} for name in names]
        if not json_output:
            _report(names, outcome, library)
    if json_output:
        print_json(results if several else results[0])


def _groups(concepts: list[Any], method: Any, library: Path, together: int) -> list[list[Any]]:
    """The concepts that learn in the same steps."""
    from mnemon.api import learns_together
    from mnemon.library import Library
    from mnemon.methods import Method, method_from

    kept = Library.open(library).method if (library / "library.json").exists() else None
    chosen = kept or (method if isinstance(method, Method) else method_from(method or "stamina"))
    size = len(concepts) if chosen.at_once else together if learns_together(chosen) else 1
    return [concepts[start : start + size] for start in range(0, len(concepts), max(size, 1))]


def _opened(base: str | None, library: Path, weights: Any, offload_text: bool = False) -> Any:
    """The base opened in this way; where nothing is asked for its name, to be opened later."""
    from mnemon import api

    return base if weights == "fp32" and not offload_text else api.open_base(base, library, weights, offload_text)


def generate(
    prompt: Annotated[list[str], typer.Argument(help='Prompts; <name> stands for a concept: "a photo of <rex> dog".')],
    library: LibraryPath = DEFAULT_LIBRARY,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for the PNG files.")] = Path("pictures"),
    number_: Annotated[int, typer.Option("--number", "-n", min=1, help="Pictures of each prompt.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the first picture; the next ones count on.")] = 0,
    negative: Annotated[str, typer.Option(help="What should not be in the picture.")] = "",
    guidance: Annotated[float, typer.Option(help="How closely to follow the prompt; 1 switches guidance off.")] = 4.0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 30,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 8,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BOX:PROMPT", help='Where a prompt is heard: "0,0,0.5,1:<rex>" (left, top, right, bottom in 0..1).'
        ),
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Give each concept of the prompt a region, spread over the picture.")
    ] = False,
    feather: Annotated[float, typer.Option(min=0, max=1, help="Fading at the regions' edges, share of a side.")] = 0.0,
    at: At = None,
    base: Annotated[str | None, typer.Option(help="Draw from a bare base instead of a library.")] = None,
    base_at: BaseAt = None,
    weights: WeightsOption = "fp32",
    offload_text: Annotated[
        bool, typer.Option("--offload-text", help="Large text encoders rest in main memory while pictures are drawn.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Draw pictures. Each PNG says how it was made.

    Example: mnemon generate "a photo of <rex> dog in the snow" --number 4
    """
    from mnemon import api
    from mnemon.library import Library
    from mnemon.sampling.regions import region_from_text

    if region and auto:
        raise MnemonError("--auto places the concepts itself: leave out --region, or --auto.")
    opened = None if base else Library.open(library, at)
    regions = [region_from_text(text) for text in region or []]
    where = _opened(base or (str(base_at) if base_at else None), library, weights, offload_text)
    before = set(to.glob("*.png"))
    with progress("drawing") as bar:
        api.generate(
            opened, prompt, base=where, negative=negative, seed=seed, number=number_, guidance=guidance, steps=steps,
            batch=batch, regions=regions, spread=auto, feather=feather, out=to,
            on_step=lambda done, total: bar(done, total, {}),
        )  # fmt: skip
    files = sorted(str(file) for file in set(to.glob("*.png")) - before)
    if json_output:
        print_json(files)
    else:
        say(f"{len(files)} pictures: {files[0]} to {files[-1]}" if len(files) > 1 else f"1 picture: {files[0]}")


def list_(library: LibraryPath = DEFAULT_LIBRARY, at: At = None, json_output: Json = False) -> None:
    """The concepts of the library, in order of learning."""
    from mnemon.library import Library

    opened = Library.open(library, at)
    concepts = [
        {"name": entry.concept, "noun": entry.noun, "state": entry.number, "learned": entry.time,
         "photos": len(entry.photos), "bytes": entry.stored_bytes}
        for entry in opened.concepts().values()
    ]  # fmt: skip
    if json_output:
        print_json(concepts)
        return
    say(f"{library}: base '{opened.base_name}', method '{opened.method.name}', state {opened.state}")
    columns = ("concept", "noun", "state", "learned", "photos", "kB")
    rows = [
        (c["name"], c["noun"] or "–", c["state"], c["learned"], c["photos"], f"{int(str(c['bytes'])) / 1000:.0f}")
        for c in concepts
    ]
    out.print(table(columns, rows))


def show(
    name: Annotated[str | None, typer.Argument(help="A concept; the library's history without one.")] = None,
    library: LibraryPath = DEFAULT_LIBRARY,
    at: At = None,
    json_output: Json = False,
) -> None:
    """One concept with its scores over time, or the library's history."""
    from mnemon.library import Library

    opened = Library.open(library, at)
    rows = opened.rows()
    if name is None:
        history = [
            {"state": e.number, "action": e.action, "concept": e.concept, "time": e.time} for e in opened.history()
        ]
        value: Any = {"base": opened.base_name, "method": opened.method.name, "history": history, "rows": rows}
        if not json_output:
            out.print(table(("state", "action", "concept", "time"), [tuple(entry.values()) for entry in history]))
            if rows:
                out.print(row_table(rows[max(rows)], opened))
    else:
        if name not in opened.concepts():
            raise MnemonError(f"{library} has no concept '{name}'; it has: {', '.join(opened.names()) or 'none yet'}.")
        entry = opened.concepts()[name]
        scores = {state: row["concepts"][name] for state, row in rows.items() if name in row["concepts"]}
        value = {
            "name": name, "noun": entry.noun, "state": entry.number, "time": entry.time, "bytes": entry.stored_bytes,
            "photos": list(entry.photos), "settings": entry.settings, "facts": entry.facts, "scores": scores,
        }  # fmt: skip
        if not json_output:
            called = f"<{name}> {entry.noun or ''}".strip()
            say(f"{called}: learned {entry.time} as state {entry.number}")
            for key, noted in entry.facts.items():
                say(f"  {key.replace('_', ' ')}: {fact(noted)}")
            lines = [(s, number(v["identity_alignment"]), number(v["image_alignment"]), number(v["text_alignment"]))
                     for s, v in scores.items()]  # fmt: skip
            out.print(table(("state", "identity", "image", "text"), lines))
    if json_output:
        print_json(value)


def evaluate(
    library: LibraryPath = DEFAULT_LIBRARY,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for plots and the page.")] = Path("evaluation"),
    again: Annotated[bool, typer.Option("--again", help="Measure rows anew that are there already.")] = False,
    base_at: BaseAt = None,
    json_output: Json = False,
) -> None:
    """Fill the whole score matrix, and write plots and one HTML page."""
    from mnemon import api
    from mnemon.library import Library
    from mnemon.metrics import figures, matrix_from_rows
    from mnemon.reports import write_evaluation

    with progress("measuring states") as bar:
        where = str(base_at) if base_at else None
        api.evaluate(library, base=where, again=again, on_state=lambda done, total: bar(done, total, {}))
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


def remove(
    name: Annotated[str, typer.Argument(help="The concept to take out.")],
    library: LibraryPath = DEFAULT_LIBRARY,
    json_output: Json = False,
) -> None:
    """Take a concept out of the model, exactly. Its files stay, so past states still open."""
    from mnemon.library import Library

    state = Library.open(library).remove(name)
    if json_output:
        print_json({"removed": name, "state": state})
    else:
        say(f"<{name}> is out; the library is at state {state}. State {state - 1} still has it (--at {state - 1}).")


def methods(json_output: Json = False) -> None:
    """The methods: what each trains and stores, and what it can do."""
    from mnemon.methods import METHODS

    keys = ("name", "trains", "stores", "fuses", "order_free", "can_remove", "source")
    rows = [{key: getattr(method, key) for key in keys} for method in METHODS.values()]
    if json_output:
        print_json(rows)
        return
    for row in rows:
        say(row["name"])
        for key in keys[1:]:
            value = {True: "yes", False: "no"}.get(row[key], row[key])
            out.print(Padding(f"{key.replace('_', ' ') + ':'} {value}", (0, 0, 0, 2)), highlight=False, markup=False)


def _method(name: str | None, pairs: list[str], library: Path) -> Any:
    """None keeps the library's own. Settings are those of a new library, or have to agree with those of one there."""
    from mnemon.library import Library
    from mnemon.methods import method_from, method_settings

    settings = dict(setting_of(pair) for pair in pairs)
    if not settings:
        return name
    own = Library.open(library).method if (library / "library.json").exists() else None
    if own is not None and name in (None, own.name):
        return method_from(own.name, method_settings(own) | settings)
    return method_from(name or "stamina", settings)


def setting_of(pair: str) -> tuple[str, Any]:
    """A key and its value, from KEY=VALUE; values are JSON or else words."""
    key, equals, text = pair.partition("=")
    if not equals:
        raise MnemonError(f"'--set {pair}' has no value: write it as '--set rank=8'.")
    try:
        return key, json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return key, text


def _share(until: str) -> float:
    """The share of `identity:SHARE`."""
    kind, _, text = until.partition(":")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if kind != "identity" or not share > 0:
        raise MnemonError(f"'--until {until}' is no goal: write the share of the ceiling as '--until identity:0.95'.")
    return share


def _known(library: Path) -> list[str]:
    from mnemon.library import Library

    return Library.open(library).names() if (library / "library.json").exists() else []


def _report(names: list[str], outcome: Any, library: Path) -> None:
    from mnemon.library import Library

    learned = " ".join(f"<{name}>" for name in names)
    fused = f", fused in {outcome.fusion_seconds:.0f} s" if outcome.fusion_seconds >= 1 else ""
    say(f"{learned} learned in {outcome.training_seconds:.0f} s{fused}; the library is at state {outcome.state}.")
    if outcome.until is not None:
        reached = (
            f"reached {outcome.until['share']:.0%} of the ceiling" if outcome.until["share"] else "goal not reached"
        )
        steps, checks = f"{outcome.until['steps']} of {outcome.until['of']} steps", outcome.until["checks"]
        say(f"{steps}, {reached}; {checks} checks took {outcome.until['seconds']:.0f} s of the time.")
    if outcome.row is not None:
        out.print(row_table(outcome.row, Library.open(library)))
