"""What a concept costs: bytes on disk, and seconds until it is learned."""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from mnemon.data import photos_tensor
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.alignment import mean_pairwise_cosine
from mnemon.evaluation.prompts import concept_prompts, prompt_set
from mnemon.library import Library
from mnemon.methods import Method
from mnemon.sampling import SamplingSettings, sample
from mnemon.training import TrainingSettings, make_tasks, train
from mnemon.world import thing_concept
from scripts.common import Bench, Result, exact, now, stand_ins

SHARE = 0.95
Curve = list[dict[str, float]]  # {"step", "seconds", "identity"} of every checkpoint


def stored(bench: Bench) -> list[Result]:
    """What the library keeps of one concept: its tensors, and the files that hold them."""
    denoiser = sum(p.numel() * p.element_size() for p in bench.base.denoiser.parameters())
    results = []
    for name, method in bench.methods.items():
        (learned,) = stand_ins(bench.base, method, 1, bench.seed)
        with TemporaryDirectory() as folder:
            library = Library.create(Path(folder) / "library", bench.base, method)
            library.commit(learned)
            on_disk = library.history()[0].stored_bytes
        details = {"tensors": learned.stored_bytes, "share_of_denoiser": learned.stored_bytes / denoiser}
        results.append(exact(f"{name}: a concept's files", "bytes", on_disk, details))
    return results


def learning(bench: Bench, encoders: Encoders) -> list[Result]:
    """Seconds of training until identity alignment first reaches 95 % of what it is after the last step.

    Scored on prompts and against images that are not trained on; the clock stands still while it is scored.
    """
    results = []
    for name, method in bench.methods.items():
        curves = {seed: _curve(bench, encoders, method, seed) for seed in bench.sizes.learning_seeds}
        reached = [_reached(curve) for curve in curves.values()]
        title = f"{name}: to {SHARE:.0%} of final identity alignment"
        results.append(_mean(title, "seconds", [one["seconds"] for one in reached], curves))
        results.append(_mean(title, "steps", [one["step"] for one in reached]))
    return results


def _mean(title: str, unit: str, values: list[float], details: dict[int, Curve] | None = None) -> Result:
    spread = f"mean, range of {len(values)} concepts"
    return Result(title, unit, statistics.mean(values), min(values), max(values), spread, None, details)


def _curve(bench: Bench, encoders: Encoders, method: Method, seed: int) -> Curve:
    thing = thing_concept("it", seed)
    tasks = make_tasks(bench.base, method, [thing.photos(5, seed=1)])
    references = encoders.identity(photos_tensor(thing.photos(16, seed=2), bench.base.resolution))
    curve: Curve = []
    began = now(bench.base)

    def on_preview(step: int) -> None:
        nonlocal began
        paused = now(bench.base)
        identity = mean_pairwise_cosine(
            encoders.identity(_images(bench, encoders, method, thing.class_noun)), references
        )
        curve.append({"step": step, "seconds": paused - began, "identity": identity})
        began += now(bench.base) - paused

    settings = TrainingSettings(
        steps=bench.sizes.learning_steps, seed=bench.seed, preview_every=bench.sizes.checkpoint_every
    )
    train(bench.base, method, tasks, settings=settings, on_preview=on_preview)
    return curve


def _images(bench: Bench, encoders: Encoders, method: Method, class_noun: str | None) -> Tensor:
    """The images that `evaluate` would sample of the concept."""
    settings, count, name = EvalSettings(), bench.sizes.images, method.prompt_name("it", class_noun)
    prompts = concept_prompts(name, class_noun, prompt_set(encoders.prompts), count).prompts
    return sample(
        bench.base,
        prompts,
        settings.seeds(count),
        SamplingSettings(settings.guidance_scale, bench.sizes.sampling_steps, batch_size=16),
    )


def _reached(curve: Curve) -> dict[str, float]:
    """The first checkpoint at 95 % of the last one's score; a score that is not above zero has nothing to reach."""
    final = curve[-1]["identity"]
    return next(point for point in curve if point["identity"] >= SHARE * final or point is curve[-1])
