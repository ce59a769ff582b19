"""What learning several concepts in the same steps saves, against learning them one after another."""

import statistics
from collections.abc import Mapping, Sequence

from mnemon.methods import Method, TrainedConcept
from mnemon.training import ConceptTask, TrainingSettings, make_tasks, train
from mnemon.world import thing_concept
from scripts.common import Bench, Result, median, now

CONCEPTS = 6
PICTURES = 2  # of each concept in a step
GOALS = {"fl2t": 1.8}


def together(bench: Bench) -> list[Result]:
    """Each round learns six concepts in the same steps, and then the same six one after another, in as many steps.

    The gain is the ratio of what one step of each concept takes: six steps of one concept against one step of all.
    Methods whose concepts wait for one another are left out.
    """
    results = []
    for name, method in bench.methods.items():
        if method.concurrent and not method.trains_jointly:
            first = bench.sizes.learning_seeds[0]
            concepts = [thing_concept(f"c{index}", first + index).photos(5, seed=1) for index in range(CONCEPTS)]
            tasks = make_tasks(bench.base, method, concepts)
            rounds = [_round(bench, method, tasks) for _ in range(bench.sizes.rounds)]
            gains = [apart / joint for joint, apart in rounds]
            milliseconds = {
                "together_ms": 1000 * statistics.median(joint for joint, _ in rounds),
                "one_after_another_ms": 1000 * statistics.median(apart for _, apart in rounds),
            }
            title = f"{name}: {CONCEPTS} concepts together / one after another"
            results.append(median(title, "times as fast", gains, details=milliseconds, least=GOALS.get(name)))
    return results


def _round(bench: Bench, method: Method, tasks: Sequence[ConceptTask]) -> tuple[float, float]:
    """Seconds that one step of every task takes: in the same step, and one after another."""
    joint, _ = _seconds_a_step(bench, method, tasks, [])
    apart, earlier = 0.0, list[TrainedConcept]()
    for task in tasks:
        step, learned = _seconds_a_step(bench, method, [task], earlier)
        apart += step
        earlier += learned
    return joint, apart


def _seconds_a_step(
    bench: Bench, method: Method, tasks: Sequence[ConceptTask], earlier: Sequence[TrainedConcept]
) -> tuple[float, list[TrainedConcept]]:
    """The median step of one run, and what was learned in it; the first steps are not counted."""
    ends: list[float] = []

    def on_step(done: int, total: int, logs: Mapping[str, float]) -> None:
        ends.append(now(bench.base))

    steps = bench.sizes.warm_up + bench.sizes.steps
    settings = TrainingSettings(steps=steps, batch_size=PICTURES, seed=bench.seed)
    learned = train(bench.base, method, tasks, earlier, settings, on_step=on_step)
    counted = ends[bench.sizes.warm_up - 1 :]
    return statistics.median(after - before for before, after in zip(counted, counted[1:], strict=False)), learned
