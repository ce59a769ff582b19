"""What a concept costs in each method: seconds and memory to learn it, to fuse it and to draw it."""

import statistics
from collections.abc import Mapping
from functools import partial

from mnemon.benchmark.measuring import PeakMemory
from mnemon.methods import Method, TrainedConcept
from mnemon.sampling import Composed, SamplingSettings
from mnemon.training import TrainingSettings, make_tasks, train
from mnemon.training.generated import calibration_images
from mnemon.world import thing_concept
from scripts.common import Bench, Result, exact, median, now, seconds, stand_ins

EARLIER = 5  # concepts in the library when the one that is measured is learned
STEPS = 100  # that a concept is taken to need
MEGABYTE = 1e6


def costs(bench: Bench) -> list[Result]:
    """Of every method the sixth concept. Seconds a concept are those of 100 steps, and of what comes before the first
    and after the last; memory is what is in use beyond the base and the earlier concepts."""
    return [result for name, method in bench.methods.items() for result in _costs(bench, name, method)]


def _costs(bench: Bench, name: str, method: Method) -> list[Result]:
    earlier = [] if method.trains_jointly else stand_ins(bench.base, method, EARLIER, bench.seed)
    with PeakMemory(bench.base.device) as learning:
        learned, step, beside = _learn(bench, method, earlier)
    concepts = [*earlier, learned]
    with PeakMemory(bench.base.device) as fusing:
        fusion = 0.0
        if method.fuses:
            with bench.base.using_tokens(method.tokens(concepts)):
                fusion = seconds(bench.base, lambda: method.compose(bench.base, concepts))
    with PeakMemory(bench.base.device) as drawing:
        images = _draw(bench, method, concepts)
    return [
        exact(f"{name}: a concept", "s", STEPS * step + beside, {"step": step, "beside_steps": beside}),
        exact(f"{name}: fusing {len(concepts)}", "s", fusion),
        median(f"{name}: an image with {len(concepts)} concepts", "s", images),
        exact(f"{name}: learning, peak", "MB", (learning.peak - learning.start) / MEGABYTE),
        exact(f"{name}: fusing, peak", "MB", (fusing.peak - fusing.start) / MEGABYTE if method.fuses else 0.0),
        exact(f"{name}: drawing, peak", "MB", (drawing.peak - drawing.start) / MEGABYTE),
    ]


def _learn(bench: Bench, method: Method, earlier: list[TrainedConcept]) -> tuple[TrainedConcept, float, float]:
    """A concept of few steps, the median second of a step, and the seconds beside the steps."""
    concept = thing_concept("it", bench.sizes.learning_seeds[0]).photos(5, seed=1)
    calibration = calibration_images(bench.base, method)  # once for a base: not counted
    ends = [now(bench.base)]

    def on_step(done: int, total: int, logs: Mapping[str, float]) -> None:
        ends.append(now(bench.base))

    tasks = make_tasks(bench.base, method, [concept], earlier, seed=bench.seed, calibration=calibration)
    settings = TrainingSettings(steps=bench.sizes.warm_up + bench.sizes.steps, seed=bench.seed)
    (learned,) = train(bench.base, method, tasks, earlier, settings, on_step=on_step)
    whole = now(bench.base) - ends[0]
    taken = [after - before for before, after in zip(ends[1:], ends[2:], strict=False)]
    step = statistics.median(taken[bench.sizes.warm_up - 1 :])
    return learned, step, max(0.0, whole - sum(taken) - step)


def _draw(bench: Bench, method: Method, learned: list[TrainedConcept]) -> list[float]:
    """Seconds an image of each round; composing is not counted."""
    count = bench.sizes.images
    prompts = [f"a photo of {method.prompt_name('it', 'mug')} on the beach"] * count
    with Composed(bench.base, method, learned) as composed:
        settings = SamplingSettings(num_inference_steps=bench.sizes.sampling_steps, batch_size=count)
        sample = partial(composed.sample, prompts, range(count), settings)
        return [seconds(bench.base, sample) / count for _ in range(bench.sizes.rounds)]
