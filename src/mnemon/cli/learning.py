"""`mnemon learn`: one more concept, or several from a list."""

from pathlib import Path
from typing import Any

from mnemon.cli import options
from mnemon.cli.options import DEFAULT_LIBRARY, opened_base, setting_of, share_of
from mnemon.cli.printing import note, out, print_json, progress, row_table, say
from mnemon.errors import MnemonError


def learn(
    photos: options.Photos,
    library: options.LibraryPath = DEFAULT_LIBRARY,
    name: options.Name = None,
    class_noun: options.Noun = None,
    base: options.NewBase = None,
    weights: options.WeightsOption = "fp32",
    method: options.NewMethod = None,
    set_: options.Settings = None,
    references: options.References = None,
    steps: options.Steps = None,
    batch_size: options.Batch = None,
    seed: options.Seed = 0,
    fit: options.Fit = "crop",
    flip: options.Flip = False,
    random_crop: options.RandomCrop = False,
    prior: options.Prior = 0,
    precision: options.Precision = "no",
    gradient_accumulation_steps: options.Accumulate = 1,
    checkpointing: options.Checkpointing = False,
    snr_gamma: options.MinSnr = None,
    together: options.Together = 6,
    preview_every: options.PreviewEvery = 0,
    preview_page: options.PreviewPage = None,
    tensorboard: options.TensorBoard = False,
    score: options.Score = True,
    until: options.Until = None,
    check_every: options.CheckEvery = 50,
    max_forgetting: options.MaxForgetting = None,
    json_output: options.Json = False,
) -> None:
    """Teach the library one more concept, and see what it still knows of all.

    Example: mnemon learn photos/rex --name rex --noun dog
    """
    from mnemon import api
    from mnemon.training import TrainingSettings

    training = TrainingSettings(
        steps=steps, batch_size=batch_size, seed=seed, mixed_precision=precision, gradient_accumulation_steps=gradient_accumulation_steps,
        gradient_checkpointing=checkpointing, snr_gamma=snr_gamma, preview_every=preview_every, tensorboard=tensorboard,
    )  # fmt: skip
    several = photos.is_file() and photos.suffix.lower() == ".json"
    if several and (name or class_noun or references):
        raise MnemonError("A list file names its concepts itself: leave out --name, --noun and --references.")
    if until and not references:
        raise MnemonError("--until looks at photos that are not trained on: give some with --references.")
    how: dict[str, Any] = {
        "training": training, "photos": api.PhotoSettings(fit, flip, random_crop), "prior": prior, "scored": score,
        "max_forgetting": max_forgetting, "until": api.Goal(share_of(until), check_every) if until else None,
    }  # fmt: skip
    concepts, held_out = _listed(photos, library) if several else _one(photos, name, class_noun, references)
    how["method"] = _method(method, set_ or [], library)
    how["base"] = opened_base(base, library, weights)
    results = []
    for group in _groups(concepts, how["method"], library, together):
        outcome = _learn(library, group, [held_out] * len(group), how, preview_page, json_output)
        results += [{"concept": concept.name, **vars(outcome)} for concept in group]
    if json_output:
        print_json(results if several else results[0])


def _one(photos: Path, name: str | None, class_noun: str | None, references: Path | None) -> tuple[list[Any], Any]:
    """The concept of a folder, and its photos to score on."""
    from mnemon.data import concept_from_folder

    concept = concept_from_folder(photos, name, class_noun)
    return [concept], concept_from_folder(references, concept.name, concept.class_noun) if references else None


def _listed(photos: Path, library: Path) -> tuple[list[Any], None]:
    """Those concepts of a list that the library has not."""
    from mnemon.data import concepts_from_list
    from mnemon.library import Library

    known = Library.open(library).names() if (library / "library.json").exists() else []
    concepts = concepts_from_list(photos)
    for concept in concepts:
        if concept.name in known:
            note(f"'{concept.name}' is in the library already: passed over.")
    return [one for one in concepts if one.name not in known], None


def _method(name: str | None, pairs: list[str], library: Path) -> Any:
    """None keeps the library's own. Settings are those of a new library, or have to agree with those of one there."""
    from mnemon.library import Library
    from mnemon.methods import method_from, method_with

    settings = dict(setting_of(pair) for pair in pairs)
    if not settings:
        return name
    own = Library.open(library).method if (library / "library.json").exists() else None
    if own is not None and name in (None, own.name):
        return method_with(own, settings)
    return method_from(name or "stamina", settings)


def _groups(concepts: list[Any], method: Any, library: Path, together: int) -> list[list[Any]]:
    """The concepts that learn in the same steps."""
    from mnemon.api import learns_together
    from mnemon.library import Library
    from mnemon.methods import Method, method_from

    kept = Library.open(library).method if (library / "library.json").exists() else None
    chosen = kept or (method if isinstance(method, Method) else method_from(method or "stamina"))
    size = len(concepts) if chosen.trains_jointly else together if learns_together(chosen) else 1
    return [concepts[start : start + size] for start in range(0, len(concepts), max(size, 1))]


def _learn(
    library: Path, group: list[Any], held_out: list[Any], how: dict[str, Any], page: Path | None, quiet: bool
) -> Any:
    """Teach the group, with a bar, and say what came of it unless `quiet`."""
    from mnemon import api
    from mnemon.library import Library

    names = " ".join(f"<{concept.name}>" for concept in group)
    with progress(f"learning {names}") as bar:
        try:
            outcome = api.learn_together(library, group, references=held_out, on_step=bar, on_images=bar.scored, **how)
        except api.Refused as refused:
            if not quiet:
                out.print(row_table(refused.row, Library.open(library)))
            raise
        if page:
            bar.rename("drawing all concepts")
            api.preview(library, page, base=how["base"])
    if not quiet:
        _report(names, outcome, library)
    return outcome


def _report(names: str, outcome: Any, library: Path) -> None:
    from mnemon.library import Library

    fused = f", fused in {outcome.fusion_seconds:.0f} s" if outcome.fusion_seconds >= 1 else ""
    say(f"{names} learned in {outcome.training_seconds:.0f} s{fused}; the library is at state {outcome.state}.")
    if outcome.until is not None:
        reached = (
            f"reached {outcome.until['share']:.0%} of the ceiling" if outcome.until["share"] else "goal not reached"
        )
        steps, checks = f"{outcome.until['steps']} of {outcome.until['of']} steps", outcome.until["checks"]
        say(f"{steps}, {reached}; {checks} checks took {outcome.until['seconds']:.0f} s of the time.")
    if outcome.row is not None:
        out.print(row_table(outcome.row, Library.open(library)))
