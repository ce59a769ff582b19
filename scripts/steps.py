"""What a training step costs: against the bare step, and with many concepts in the library against one."""

import statistics
from collections.abc import Mapping

import torch

from mnemon.methods import Method, TrainedConcept
from mnemon.models import Base
from mnemon.training import Examples, TrainingSettings, make_tasks, train
from mnemon.world import thing_concept
from scripts.common import Bench, Result, median, now, stand_ins

GOALS = {"lora": 1.20, "stamina": 1.35}
MANY_GOAL = 1.05
Pairs = list[tuple[float, float]]  # seconds of a step of ours, and of the bare step right after it


class BareStep:
    """The peer: forward and backward of the base with its key and value weights trainable, and AdamW on these.

    Same batch size, prompts, noise and loss as the training loop; no token is trained, nothing is logged or checked.
    The rate is 0: that costs what any rate costs, and the base stays as it is.
    """

    def __init__(self, base: Base, data: Examples, batch: int, seed: int) -> None:
        self.base, self.data, self.batch = base, data, batch
        self.generator = torch.Generator(base.device).manual_seed(seed)
        weights = [layer.weight.requires_grad_(True) for layer in base.target_modules().values()]
        self.optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0, fused=True)

    def __call__(self) -> None:
        device = self.base.device
        rows = torch.randint(len(self.data.latents), (self.batch,), generator=self.generator, device=device).cpu()
        latents = self.data.latents[rows.to(self.data.latents.device)].to(device)
        noise = torch.randn(latents.shape, generator=self.generator, device=device)
        timesteps = self.base.schedule.sample_timesteps(self.batch, self.generator)
        condition = self.base.encode_prompts([self.data.prompts[row] for row in rows])
        answer = self.base.predict(self.base.schedule.add_noise(latents, noise, timesteps), timesteps, condition)
        torch.nn.functional.mse_loss(answer, self.base.schedule.target(latents, noise, timesteps)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def steps(bench: Bench) -> list[Result]:
    """Each round trains every method with one and with many earlier concepts; every step is followed by a bare one.

    The ratio to the bare step is taken with one earlier concept, so that what guards it is at work. The cost of many
    concepts is the ratio of two such ratios of one round, so a change of the machine's speed cancels.
    """
    earlier = {
        name: stand_ins(bench.base, method, bench.sizes.concepts, bench.seed) for name, method in bench.methods.items()
    }
    rounds = [_round(bench, earlier) for _ in range(bench.sizes.rounds)]
    results = []
    for name in bench.methods:
        pairs = [pair for one in rounds for pair in one[name, 1]]
        milliseconds = {"ours_ms": _milliseconds(pairs, 0), "bare_ms": _milliseconds(pairs, 1)}
        ratios = [ours / bare for ours, bare in pairs]
        results.append(median(f"{name}: step / bare step", "ratio", ratios, GOALS.get(name), milliseconds))
    many = bench.sizes.concepts
    for name in bench.methods:
        ratios = [_ratio(one[name, many]) / _ratio(one[name, 1]) for one in rounds]
        results.append(median(f"{name}: step with {many} concepts / with one", "ratio", ratios, MANY_GOAL))
    return results


def _round(bench: Bench, earlier: Mapping[str, list[TrainedConcept]]) -> dict[tuple[str, int], Pairs]:
    return {
        (name, count): _pairs(bench, method, earlier[name][:count])
        for count in (1, bench.sizes.concepts)
        for name, method in bench.methods.items()
    }


def _pairs(bench: Bench, method: Method, earlier: list[TrainedConcept]) -> Pairs:
    """Train with a bare step on the other copy of the base after every step; the first steps are not counted."""
    concept = thing_concept("it", bench.sizes.learning_seeds[0]).photos(5, seed=1)
    tasks = make_tasks(bench.base, method, [concept])
    bench.bare.set_tokens({"it": _word(bench.bare, concept.class_noun or "it")})
    bare = BareStep(bench.bare, tasks[0].examples, method.batch_size, bench.seed)
    pairs: Pairs = []
    began = now(bench.base)

    def on_step(done: int, total: int, logs: Mapping[str, float]) -> None:
        nonlocal began
        between = now(bench.base)
        bare()
        after = now(bench.base)
        pairs.append((between - began, after - between))
        began = now(bench.base)

    settings = TrainingSettings(steps=bench.sizes.warm_up + bench.sizes.steps, seed=bench.seed)
    train(bench.base, method, tasks, earlier, settings, on_step=on_step)
    bench.bare.denoiser.requires_grad_(False)
    return pairs[bench.sizes.warm_up :]


def _word(base: Base, word: str) -> dict[str, torch.Tensor]:
    return {encoder: vector[None] for encoder, vector in base.word_embeddings(word).items()}


def _ratio(pairs: Pairs) -> float:
    return statistics.median(ours / bare for ours, bare in pairs)


def _milliseconds(pairs: Pairs, which: int) -> float:
    return 1000 * statistics.median(pair[which] for pair in pairs)
