"""The transformer families in use: opened from disk, taught concepts, drawn with them."""

import json
from pathlib import Path

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.methods import METHODS, method_from
from mnemon.methods.base import TrainedConcept
from mnemon.models import FAMILIES, load_base
from mnemon.models.transformer import TransformerBase
from mnemon.sampling import Composed, SamplingSettings, sample
from mnemon.training import ConceptTask, Examples, generated, train
from mnemon.training.loss import denoising_loss
from tests.contract.table import images, learn_all, small
from tests.tiny_transformers import PIPELINES, SIDE, shared_pipeline, tiny_base, tiny_sd3

READ_WORDS = {"custom-diffusion-merge", "mix-of-show", "orthogonal-adaptation", "cidm", "fl2t"}
"""Methods that work on encoded words, or have tokens for each layer: they cannot run where words change on the way."""
PROMPTS = ["a photo of <rex> dog and <mia> cat", "a dog"]


@pytest.fixture(params=PIPELINES, name="base")
def _base(request: pytest.FixtureRequest) -> TransformerBase:
    return tiny_base(request.param)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_saved_pipeline_opens_as_what_it_was(family: str, tmp_path: Path) -> None:
    pipeline = shared_pipeline(family)
    pipeline.save_pretrained(tmp_path)
    base, fresh = load_base(str(tmp_path)), FAMILIES[family](pipeline, name="fresh")
    assert isinstance(base, TransformerBase) and base.family == family and FAMILIES[family] is type(base)
    assert base.resolution == {"sd3": SIDE, "z-image": 1024}.get(family, 128 * 2), "what the pipeline draws by default"
    base.resolution = SIDE
    condition, expected = base.encode_prompts(["a photo of a dog"]), fresh.encode_prompts(["a photo of a dog"])
    torch.testing.assert_close(condition.prompt_embeds, expected.prompt_embeds)
    noisy, times = torch.randn(1, *base.latent_shape()), torch.tensor([500.0])
    torch.testing.assert_close(base.predict(noisy, times, condition), fresh.predict(noisy, times, expected))


def test_a_checkpoint_without_t5_opens(tmp_path: Path) -> None:
    tiny_sd3(t5=False).save_pretrained(tmp_path)
    base = load_base(str(tmp_path))
    assert [encoder.name for encoder in base.encoders] == ["text_encoder", "text_encoder_2"]


def test_a_scheduler_that_is_no_flow_is_refused(tmp_path: Path) -> None:
    tiny_sd3().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(MnemonError, match=r"DDIMScheduler.*flows.*model_index.json"):
        load_base(str(tmp_path))


def learn(base: TransformerBase, name: str, earlier: list[TrainedConcept], method_name: str) -> TrainedConcept:
    method = method_from(method_name, {"steps": 3, "batch_size": 2} | ({"rank": 2} if method_name == "lora" else {}))
    generator = torch.Generator().manual_seed(len(name))
    latents = base.encode_images(torch.rand(2, 3, SIDE, SIDE, generator=generator))
    prompts = [f"a photo of <{name}> dog", f"<{name}> dog in snow"]
    return train(base, method, [ConceptTask(name, "dog", Examples(latents, prompts))], earlier)[0]


@pytest.mark.parametrize("method", ["lora", "textual-inversion"])
def test_two_concepts_are_learned_and_drawn(base: TransformerBase, method: str) -> None:
    weights = {path: layer.weight.clone() for path, layer in base.target_modules().items()}
    plain = sample(base, PROMPTS[1:], [1], SamplingSettings(2, 2))
    rex = learn(base, "rex", [], method)
    mia = learn(base, "mia", [rex], method)
    assert set(rex.tokens) == {encoder.name for encoder in base.encoders}
    assert (set(rex.deltas) == set(base.target_modules())) == (method == "lora")
    assert all(delta.matrix().abs().sum() > 0 for delta in mia.deltas.values())
    with Composed(base, method_from(method), [rex, mia]) as composed:
        images = composed.sample(PROMPTS, [1, 1], SamplingSettings(2, 2))
        assert torch.equal(images, composed.sample(PROMPTS, [1, 1], SamplingSettings(2, 2)))
        swapped = composed.sample([PROMPTS[0].replace("<mia>", "<rex>")], [1], SamplingSettings(2, 2))
    assert images.isfinite().all() and not torch.equal(images[:1], swapped)
    assert torch.allclose(images[1:], plain, atol=1e-5) == (method == "textual-inversion")
    assert all(torch.equal(layer.weight, weights[path]) for path, layer in base.target_modules().items())
    assert torch.equal(sample(base, PROMPTS[1:], [1], SamplingSettings(2, 2)), plain)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_and_draws_or_says_why_not_beforehand(method: str, tmp_path: Path) -> None:
    base = tiny_base("z-image")
    chosen = small(method)
    if method in READ_WORDS:
        refusal = rf"'{method}' works on the words.*z-image base.*Choose another"
        with pytest.raises(MnemonError, match=refusal):
            learn_all(base, chosen, ["rex", "mia"])
        with pytest.raises(MnemonError, match=refusal):
            Library.create(tmp_path / "library", base, chosen)
        assert not (tmp_path / "library").exists()
        return
    learned = learn_all(base, chosen, ["rex", "mia"])
    images(base, chosen, learned, ["a photo of <rex> dog", "a photo of <mia> dog"])


def test_cns_runs_by_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "CALIBRATION", 8)
    base, chosen = tiny_base("z-image"), method_from("cns", {"steps": 3, "batch_size": 2, "score": "grad", "draws": 6})
    learned = learn_all(base, chosen, ["rex", "mia"])
    assert all(any(delta.matrix().any() for delta in one.deltas.values()) for one in learned)


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen-image", "z-image"])
def test_learning_lowers_the_loss(family: str) -> None:
    base = tiny_base(family)
    method = method_from("lora", {"steps": 12, "batch_size": 4, "rank": 4, "rate": 1e-2})
    latents = base.encode_images(torch.full((1, 3, SIDE, SIDE), 0.9))

    @torch.no_grad()
    def loss(prompt: str) -> float:
        draws = torch.Generator().manual_seed(0)
        clean = latents.expand(16, -1, -1, -1)
        noise, times = torch.randn(clean.shape, generator=draws), base.schedule.sample_timesteps(16, draws)
        return float(denoising_loss(base, clean, noise, times, base.encode_prompts([prompt] * 16)).mean())

    before = loss("a dog")
    learned = train(base, method, [ConceptTask("rex", "dog", Examples(latents, ["a <rex> dog"]))])
    with Composed(base, method, learned):
        assert loss("a <rex> dog") < before
    assert loss("a dog") == before


def test_a_concept_of_another_family_is_refused(base: TransformerBase) -> None:
    other = tiny_base("sd3" if base.family != "sd3" else "flux")
    learned = learn(other, "rex", [], "lora")
    with pytest.raises(MnemonError, match="rex|transformer_blocks"), Composed(base, method_from("lora"), [learned]):
        pass
    base.encode_prompts(["a dog"])
    assert not base.tokens
