"""`mnemon learn`: one more concept, or several from a list."""

import shlex
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnemon.cli import options
from mnemon.cli.options import DEFAULT_LIBRARY, opened_base, scoring, setting_of, share_of
from mnemon.cli.printing import (
    Bar,
    earlier_scores,
    note,
    out,
    print_json,
    progress,
    row_table,
    say,
    stopping_between_steps,
)
from mnemon.errors import MnemonError
from mnemon.settings import DEFAULT_METHOD
from mnemon.verdict import in_words, weak

if TYPE_CHECKING:
    from mnemon.api import LearnResult


def learn(
    photos: options.Photos,
    library: options.LibraryPath = DEFAULT_LIBRARY,
    name: options.Name = None,
    class_noun: options.ClassNoun = None,
    base: options.NewBase = None,
    weights: options.WeightsOption = "fp32",
    method: options.NewMethod = None,
    set_: options.Settings = None,
    references: options.References = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    fit: options.Fit = "crop",
    flip: options.Flip = False,
    random_crop: options.RandomCrop = False,
    num_class_images: options.NumClassImages = 0,
    mixed_precision: options.MixedPrecision = "no",
    gradient_accumulation_steps: options.GradientAccumulationSteps = 1,
    gradient_checkpointing: options.GradientCheckpointing = False,
    snr_gamma: options.SnrGamma = None,
    masked_loss: options.MaskedLoss = False,
    together: options.Together = 6,
    preview_every: options.PreviewEvery = 0,
    preview_page: options.PreviewPage = None,
    tensorboard: options.TensorBoard = False,
    score: options.Score = "all",
    no_score: options.NoScore = False,
    until: options.Until = None,
    check_every: options.CheckEvery = 50,
    max_forgetting: options.MaxForgetting = None,
    json_output: options.Json = False,
) -> None:
    """Teach the library one more concept, and score all concepts so far.

    Example: mnemon learn photos/rex --name rex --class-noun dog
    """
    from mnemon import api
    from mnemon.library import Library, is_library
    from mnemon.training import TrainingSettings
    from mnemon.training.prompt_check import check_training_prompts
    from mnemon.training.tasks import check_masks

    training = TrainingSettings(
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=gradient_accumulation_steps,
        gradient_checkpointing=gradient_checkpointing,
        snr_gamma=snr_gamma,
        masked_loss=masked_loss,
        preview_every=preview_every,
        tensorboard=tensorboard,
    )
    several = photos.is_file() and photos.suffix.lower() == ".json"
    if several and (name or class_noun or references):
        raise MnemonError("A list file names its concepts itself: leave out --name, --class-noun and --references.")
    if until and not references:
        raise MnemonError("--until needs photos that are not trained on: give some with --references.")
    early_stopping = api.EarlyStopping(share_of(until), check_every) if until else None
    opened = Library.open(library) if is_library(library) else None
    if opened and api.finish_commit(opened):
        note(f"An interrupted commit was finished; the library is at revision {opened.revision}.")
    known, own = (opened.names(), opened.method) if opened else ((), None)
    with progress("reading photos", after=2.0) as bar:
        concepts, held_out = _listed(photos, known, bar) if several else _one(photos, name, class_noun, references, bar)
    chosen = _method(method, set_ or [], own)
    call = partial(
        api.learn,
        library,
        base=opened_base(base, library, weights),
        method=chosen,
        references=held_out,
        photos=api.PhotoSettings(fit, flip, random_crop),
        training=training,
        num_class_images=num_class_images,
        **scoring(score, no_score),
        max_forgetting=max_forgetting,
        early_stopping=early_stopping,
    )
    groups = _groups(concepts, own or chosen, together)
    for group in groups if masked_loss else ():  # all of them, before the first one trains
        check_masks(group)
    if len(groups) > 1:
        found = api.open_base(base, library, weights)
        call.keywords["base"] = found
        method_of = own or chosen
        method_of.check_base(found)
        earlier = opened.learned() if opened else []
        check_training_prompts(found, method_of, groups, earlier, with_class_images=num_class_images > 0)
    results = []
    if not groups and opened and not no_score and opened.revision not in opened.rows():
        note(f"Revision {opened.revision} has no scores yet: `mnemon evaluate -l {library}` measures them.")
    for group in groups:
        result = _learn(call, library, group, preview_page, json_output)
        results += [{"concept": concept.name, **result.to_json(), **_read(concept, held_out)} for concept in group]
    if json_output:
        print_json(results if several else results[0])


def _one(
    photos: Path, name: str | None, class_noun: str | None, references: Path | None, bar: Bar
) -> tuple[list[Any], Any]:
    """The concept of a folder, and its photos to score on."""
    from mnemon.data import concept_from_folder

    read = partial(concept_from_folder, on_photo=bar.count)
    concept = read(photos, name, class_noun)
    return [concept], read(references, concept.name, concept.class_noun) if references else None


def _read(concept: Any, references: Any) -> dict[str, Any]:
    """What was read and passed over, for JSON."""
    reports = {"photos": concept.report, "references": references and references.report}
    return {what: report and report.to_json() for what, report in reports.items()}


def _listed(photos: Path, known: Collection[str], bar: Bar) -> tuple[list[Any], None]:
    """Those concepts of a list that are not `known`."""
    from mnemon.data import concepts_from_list

    concepts = concepts_from_list(photos, on_photo=bar.count)
    for concept in concepts:
        if concept.name in known:
            note(f"'{concept.name}' is in the library already: passed over.")
    return [one for one in concepts if one.name not in known], None


def _method(name: str | None, pairs: list[str], own: Any) -> Any:
    """None keeps `own`, the library's. Settings are those of a new library, or have to agree with those of `own`."""
    from mnemon.methods import method_from, method_with

    settings = dict(setting_of(pair) for pair in pairs)
    if own is not None and name in (None, own.name):
        return method_with(own, settings) if settings else name
    return method_from(name or DEFAULT_METHOD, settings)


def _groups(concepts: list[Any], method: Any, together: int) -> list[list[Any]]:
    """The concepts that are trained in the same steps."""
    size = len(concepts) if method.trains_jointly else together if method.concurrent else 1
    return [concepts[start : start + size] for start in range(0, len(concepts), max(size, 1))]


def _learn(
    call: "partial[LearnResult]", library: Path, group: list[Any], page: Path | None, quiet: bool
) -> "LearnResult":
    """Learn the group with a progress bar, and print the result unless `quiet`."""
    from mnemon import api
    from mnemon.library import Library, is_library

    names = " ".join(f"<{concept.name}>" for concept in group)
    with progress(f"learning {names}") as bar, stopping_between_steps(bar) as on_step:
        bar.to_score = (len(Library.open(library).names()) if is_library(library) else 0) + len(group) + 1
        try:
            result = call(group, on_step=on_step, on_images=bar.scored)
        except KeyboardInterrupt:
            _say_what_is_kept(library, group)
            raise
        except api.BudgetExceeded as exceeded:
            if not quiet:
                out.print(row_table(exceeded.row, Library.open(library)))
            raise
        if page:
            bar.rename("generating all concepts")
            api.preview(library, page, base=call.keywords["base"])
    if not quiet:
        _report(names, result, library)
        _say_next(group, result, library)
    return result


def _say_what_is_kept(library: Path, group: list[Any]) -> None:
    """After Ctrl-C: what of the training is there to go on from."""
    from mnemon.library import Library, is_library
    from mnemon.training.resume import kept_checkpoints, run_folder

    names = [concept.name for concept in group]
    if is_library(library) and all(name in Library.open(library).names() for name in names):
        note(
            f"What was learned is in the library: `mnemon evaluate -l {library}` measures the scores that are missing."
        )
    elif kept_checkpoints(run_folder(library, names)):
        note("The steps taken are kept: the same command goes on from there.")
    else:
        note("No step was taken yet: the same command begins anew.")


def _report(names: str, result: "LearnResult", library: Path) -> None:
    from mnemon.library import Library

    fused = f", fused in {result.fusion_seconds:.0f} s" if result.fusion_seconds >= 1 else ""
    say(f"{names} learned in {result.training_seconds:.0f} s{fused}; the library is at revision {result.revision}.")
    if (stopped := result.early_stopping) is not None:
        reached = f"reached {stopped['share']:.0%} of the ceiling" if stopped["share"] else "goal not reached"
        say(
            f"{stopped['steps']} of {stopped['of']} steps, {reached}; {stopped['checks']} checks took "
            f"{stopped['seconds']:.0f} s of the time."
        )
    if result.row is not None:
        opened = Library.open(library)
        out.print(row_table(result.row, opened))
        say(in_words(result.row, earlier_scores(result.row, opened)))


def _say_next(group: list[Any], result: "LearnResult", library: Path) -> None:
    """What to type next: draw it, or make it better first."""
    called = f"<{group[0].name}> {group[0].class_noun or ''}".strip()
    where = "" if library == DEFAULT_LIBRARY else f" -l {shlex.quote(str(library))}"
    say(f"Next: mnemon generate {shlex.quote(f'a photo of {called}')}{where}")
    poor = [name for name in weak(result.row) if name in [one.name for one in group]] if result.row else []
    if poor:
        say(
            f"A better <{poor[0]}>: remove it, and learn it with more photos or other --steps, or stop at its best "
            "with --references and --until."
        )
