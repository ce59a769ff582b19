from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mnemon.adapters import attach
from mnemon.errors import MnemonError
from mnemon.methods import TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.models import Base
from mnemon.training import ConceptTask, Examples, TrainingSettings, train
from tests.contract.table import assert_same_learned, predict
from tests.tiny import tiny_sd_base
from tests.training.runs import LORA, STAMINA, latents, learn, task


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def assert_close(left: TrainedConcept, right: TrainedConcept) -> None:
    for target, delta in left.deltas.items():
        torch.testing.assert_close(delta.matrix(), right.deltas[target].matrix(), atol=1e-4, rtol=1e-2)


def test_training_lowers_the_loss_on_one_image(base: Base) -> None:
    losses: list[float] = []

    def hold(step: int, total: int, logs: dict[str, float]) -> None:
        losses.append(logs["loss"])

    one = ConceptTask("rex", None, Examples(torch.ones(1, *base.latent_shape()), ["<rex>"]))
    settings = TrainingSettings(steps=30, batch_size=4)
    train(base, Lora(rank=4, learning_rate=2e-2), [one], settings=settings, on_step=hold)
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


def test_progress_tells_steps_losses_and_rate(base: Base) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    learn(base, settings={"lr_warmup_steps": 1}, on_step=lambda *call: seen.append(call))
    assert [(step, total) for step, total, _ in seen] == [(step, 6) for step in range(1, 7)]
    assert all(logs.keys() == {"loss", "penalty", "rate"} for *_, logs in seen)
    assert [logs["rate"] for *_, logs in seen][:2] == [0.001, 0.002]


def test_a_batch_in_parts_learns_what_the_whole_batch_does(base: Base) -> None:
    whole = learn(base)
    assert_close(whole, learn(base, settings={"gradient_accumulation_steps": 2}))
    assert_close(whole, learn(base, settings={"gradient_accumulation_steps": 3}))
    with pytest.raises(MnemonError, match="batch of 4 cannot be computed in 5 parts"):
        learn(base, settings={"gradient_accumulation_steps": 5})


def test_checkpointed_gradients_are_the_same_numbers(base: Base) -> None:
    assert_same_learned(learn(base), learn(base, settings={"gradient_checkpointing": True}))
    assert not any(getattr(module, "gradient_checkpointing", False) for module in base.denoiser.modules())


def test_mixed_precision_learns_nearly_the_same_in_fp32_factors(base: Base) -> None:
    mixed = learn(base, settings={"mixed_precision": "bf16"})
    for target, delta in learn(base).deltas.items():
        other = mixed.deltas[target]
        assert all(tensor.dtype != torch.bfloat16 for tensor in other.state().values())
        similarity = torch.cosine_similarity(delta.matrix().flatten(), other.matrix().flatten(), dim=0)
        assert 0.8 < similarity < 1
    assert_same_learned(learn(base), learn(base))  # and the next run is in fp32 again


def test_fp16_without_a_gpu_is_refused(base: Base) -> None:
    with pytest.raises(MnemonError, match="fp16 needs a GPU"):
        learn(base, settings={"mixed_precision": "fp16"})


def test_previews_show_the_concept_and_change_nothing(base: Base) -> None:
    shown: list[tuple[int, torch.Tensor]] = []

    def look(step: int) -> None:
        shown.append((step, predict(base, ["a <rex> dog"])))

    learned = learn(base, STAMINA, {"preview_every": 3}, on_preview=look)
    assert [step for step, _ in shown] == [3, 6]
    assert_same_learned(learned, learn(base, STAMINA))
    base.set_tokens({"rex": learned.tokens})
    with attach(base.target_modules(), STAMINA.compose(base, [learned])):
        torch.testing.assert_close(shown[-1][1], predict(base, ["a <rex> dog"]), atol=1e-5, rtol=0)
    base.set_tokens({})


def test_prior_images_pull_and_their_weight_counts(base: Base) -> None:
    prior = Examples(latents(base, 2, seed=1), ["a dog", "a red dog"])
    plain = learn(base)
    pulled, more = learn(base, prior=prior), learn(base, settings={"prior_loss_weight": 5.0}, prior=prior)
    target = next(iter(plain.deltas))
    matrices = [one.deltas[target].matrix() for one in (plain, pulled, more)]
    assert not torch.equal(matrices[0], matrices[1]) and not torch.equal(matrices[1], matrices[2])


def test_earlier_concepts_are_at_work_while_a_new_one_is_learned(base: Base) -> None:
    earlier = learn(base)
    prompts = ["a photo of <kiki> dog", "<kiki> dog and <rex> dog"]
    first: list[float] = []
    for known in ([], [earlier]):
        kiki = task(base, prompts if known else prompts[:1] * 2, "kiki")
        settings = TrainingSettings(steps=1, batch_size=8)
        train(base, LORA, [kiki], known, settings, on_step=lambda step, total, logs: first.append(logs["loss"]))
    assert first[0] != first[1]


def test_bad_input_is_refused_in_words(base: Base) -> None:
    def rex(images: torch.Tensor, prompts: Sequence[str]) -> list[TrainedConcept]:
        one = ConceptTask("rex", None, Examples(images, prompts))
        return train(base, LORA, [one], settings=TrainingSettings(steps=1))

    with pytest.raises(MnemonError, match="3 images and 2 prompts"):
        rex(latents(base), ["<rex>"] * 2)
    with pytest.raises(MnemonError, match="3 images and 1 prompts"):
        rex(latents(base), "<x>")
    with pytest.raises(MnemonError, match="0 images"):
        rex(latents(base, 0), [])
    with pytest.raises(MnemonError, match="<kiki>.*not known"):
        rex(latents(base), ["<kiki>"] * 3)
    with pytest.raises(MnemonError, match="diverged"):
        rex(latents(base) * torch.inf, ["<rex>"] * 3)


def test_a_run_that_diverges_keeps_its_last_good_snapshot(base: Base, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    seen: list[bytes] = []
    with pytest.raises(MnemonError, match="loss of 'rex' is .* at step"):
        learn(
            base,
            Lora(rank=2, learning_rate=1e30, steps=6, batch_size=4),
            {"checkpoint_seconds": 0},
            folder=tmp_path,
            on_step=lambda *_: seen.append(checkpoint.read_bytes()),
        )
    assert seen and checkpoint.read_bytes() == seen[-1]


def test_tensorboard_gets_the_losses(base: Base, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(MnemonError, match="needs a folder"):
        learn(base, settings={"tensorboard": True})
    learn(base, settings={"tensorboard": True}, folder=tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_gradients_are_clipped_all_together(base: Base) -> None:
    plain, clipped, loose = (
        learn(base, settings={"max_grad_norm": norm, "steps": 2, "batch_size": 1, "gradient_accumulation_steps": 1})
        for norm in (None, 1e-12, 1e6)
    )
    assert_same_learned(plain, loose)  # nothing is so large
    # AdamW's steps are of one size whatever the gradients, but for its epsilon of 1e-8.
    sizes = [sum(float(delta.matrix().abs().max()) for delta in one.deltas.values()) for one in (plain, clipped)]
    assert sizes[1] < 1e-2 * sizes[0]
