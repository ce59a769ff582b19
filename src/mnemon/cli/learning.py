"""`mnemon learn`: one more concept, or several from a list."""

import shlex
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mnemon.cli import options
from mnemon.cli.config import ConceptConfig, Config, read_config
from mnemon.cli.grouping import Wanted, grouped
from mnemon.cli.options import DEFAULT_LIBRARY, memory_of, scoring, setting_of, share_of
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
    photos: options.Photos = None,
    config: options.ConfigFile = None,
    library: options.LibraryPath = DEFAULT_LIBRARY,
    name: options.Name = None,
    class_noun: options.ClassNoun = None,
    base: options.NewBase = None,
    weights: options.WeightsOption = None,
    memory: options.Memory = None,
    method: options.NewMethod = None,
    set_: options.Settings = None,
    references: options.References = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    fit: options.Fit = "crop",
    flip: options.Flip = False,
    random_crop: options.RandomCrop = False,
    num_class_images: options.NumClassImages = 0,
    mixed_precision: options.MixedPrecision = None,
    gradient_accumulation_steps: options.GradientAccumulationSteps = None,
    gradient_checkpointing: options.GradientCheckpointing = None,
    max_grad_norm: options.MaxGradNorm = None,
    snr_gamma: options.SnrGamma = None,
    masked_loss: options.MaskedLoss = False,
    training: options.Training = None,
    together: options.Together = 6,
    preview_every: options.PreviewEvery = None,
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
    from mnemon.methods import method_from
    from mnemon.settings import settings_from_json
    from mnemon.training import TrainingSettings
    from mnemon.training.prompt_check import check_training_prompts
    from mnemon.training.tasks import check_masks

    file = Config() if config is None else read_config(config)
    given = {
        "steps": steps, "batch_size": batch_size, "seed": seed, "mixed_precision": mixed_precision,
        "gradient_accumulation_steps": gradient_accumulation_steps, "gradient_checkpointing": gradient_checkpointing,
        "max_grad_norm": max_grad_norm, "snr_gamma": snr_gamma, "masked_loss": masked_loss or None,
        "preview_every": preview_every, "tensorboard": tensorboard or None,
    }  # fmt: skip
    said = {key: value for key, value in given.items() if value is not None}
    chosen = {**file.training, **_training(training), **said}
    masked_loss = settings_from_json(TrainingSettings, chosen, "The training").masked_loss  # before anything is read
    settings = {**file.settings, **dict(map(setting_of, set_ or []))}
    opened = Library.open(library) if is_library(library) else None
    if opened and api.finish_commit(opened):
        note(f"An interrupted commit was finished; the library is at revision {opened.revision}.")
    known, used = (opened.names(), opened.method) if opened else ((), None)
    like = used if used and method in (None, used.name) else method_from(method or DEFAULT_METHOD, settings)
    own = ConceptConfig(photos, name, class_noun, references, num_class_images) if photos else None
    wanted = _wanted(own, file, config)
    if until and not all(one.references for one in wanted):
        raise MnemonError("--until needs photos that are not trained on: give some with --references.")
    early_stopping = api.EarlyStopping(share_of(until), check_every) if until else None
    with progress("reading photos", after=2.0) as bar:
        concepts = [one for each in wanted for one in _concepts(each, known, photos is None, bar)]
    if not concepts:
        if opened and not no_score and score != "none" and opened.revision not in opened.rows():
            note(f"Revision {opened.revision} has no scores yet: `mnemon evaluate -l {library}` measures them.")
        return print_json([]) if json_output else None
    setup = api.set_up(
        library, base, method=method, method_settings=settings, training=chosen, weights=weights,
        memory=memory_of(memory) if memory else None,
    )  # fmt: skip
    call = partial(
        api.learn,
        library,
        base=setup.base,
        method=setup.method,
        photos=api.PhotoSettings(fit, flip, random_crop),
        **scoring(score, no_score),
        max_forgetting=max_forgetting,
        early_stopping=early_stopping,
    )
    groups = [(group, group[0].training_of(setup.training)) for group in grouped(concepts, like, together)]
    for group, loop in groups:  # all of them, before the first one trains
        if masked_loss or loop.masked_loss:
            check_masks([one.concept for one in group])
    if len(groups) > 1:
        like.check_base(setup.base)
        earlier = opened.learned() if opened else []
        parts = [[one.concept for one in group] for group, _ in groups]
        with_class = any(one.wanted.num_class_images for one in concepts)
        check_training_prompts(setup.base, like, parts, earlier, with_class_images=with_class)
    results = []
    for group, loop in groups:
        result = _learn(partial(call, training=loop), library, group, preview_page, json_output)
        results += [{"concept": one.concept.name, **result.to_json(), **_read(one)} for one in group]
    if json_output:
        print_json(results if photos is None or _is_list(photos) else results[0])


def _training(pairs: list[str] | None) -> dict[str, Any]:
    return dict(setting_of(pair, "--training steps=300") for pair in pairs or [])


def _wanted(own: ConceptConfig | None, file: Config, path: Path | None) -> list[ConceptConfig]:
    """What is to be learned: what the command line names, or else the file's concepts."""
    if own is not None:
        if _is_list(own.photos) and (own.name or own.class_noun or own.references):
            raise MnemonError("A list file names its concepts itself: leave out --name, --class-noun and --references.")
        return [own]
    if path is None:
        raise typer.BadParameter("give a folder of photos, a list, or a file with --config.", param_hint="PHOTOS")
    if not file.concepts:
        raise MnemonError(f"There is no concept to learn: the config '{path}' has none: add [[concepts]].")
    return list(file.concepts)


def _is_list(photos: Path) -> bool:
    return photos.is_file() and photos.suffix.lower() == ".json"


def _concepts(wanted: ConceptConfig, known: Collection[str], skip: bool, bar: Bar) -> Iterator[Wanted]:
    """The concept of a folder, or those of a list; with `skip`, and of lists, only those that are not `known`."""
    from mnemon.data import concept_from_folder, concepts_from_list

    read = partial(concept_from_folder, on_photo=bar.count)
    several = _is_list(wanted.photos)
    concepts = (
        concepts_from_list(wanted.photos, on_photo=bar.count)
        if several
        else [read(wanted.photos, wanted.name, wanted.class_noun)]
    )
    for concept in concepts:
        if (several or skip) and concept.name in known:
            note(f"'{concept.name}' is in the library already: passed over.")
            continue
        held_out = read(wanted.references, concept.name, concept.class_noun) if wanted.references else None
        yield Wanted(concept, held_out, wanted)


def _read(one: Wanted) -> dict[str, Any]:
    """What was read and passed over, for JSON."""
    reports = {"photos": one.concept.report, "references": one.references and one.references.report}
    return {what: report and report.to_json() for what, report in reports.items()}


def _learn(
    call: "partial[LearnResult]", library: Path, group: list[Wanted], page: Path | None, quiet: bool
) -> "LearnResult":
    """Learn the group with a progress bar, and print the result unless `quiet`."""
    from mnemon import api
    from mnemon.library import Library, is_library

    concepts, references = [one.concept for one in group], [one.references for one in group]
    count = group[0].wanted.num_class_images
    names = " ".join(f"<{concept.name}>" for concept in concepts)
    with progress(f"learning {names}") as bar, stopping_between_steps(bar) as on_step:
        bar.to_score = (len(Library.open(library).names()) if is_library(library) else 0) + len(group) + 1
        own = {"references": references, "num_class_images": count}
        try:
            result = call(concepts, **own, on_step=on_step, on_images=bar.scored)
        except KeyboardInterrupt:
            _say_what_is_kept(library, concepts)
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
        _say_next(concepts, result, library)
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
