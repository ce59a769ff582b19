"""The recipe of the built-in base, in miniature: resumable, gated, and opening with plain diffusers."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from mnemon.errors import MnemonError
from mnemon.evaluation import WorldEncoders
from mnemon.models import load_base
from mnemon.world.attributes import ATTRIBUTES
from mnemon.world.captions import vocabulary
from mnemon.world.recipe import muon
from mnemon.world.recipe.build import Recipe, build
from mnemon.world.recipe.card import write_card
from mnemon.world.recipe.fit import EMA, Schedule, fit
from mnemon.world.recipe.gates import GATES, misses, pair_prompts, require, single_prompts
from mnemon.world.recipe.images import pairs, scenes
from mnemon.world.recipe.muon import Muon, orthogonal
from mnemon.world.recipe.tokenizer import build_tokenizer

TINY = Recipe(
    scenes=30,
    pairs=8,
    judge_scenes=30,
    judge_pairs=8,
    test_scenes=30,
    test_pairs=8,
    encoder_steps=1,
    encoder_batch=4,
    autoencoder_steps=1,
    autoencoder_batch=2,
    clip_steps=1,
    clip_batch=2,
    denoiser_steps=1,
    denoiser_batch=2,
    test_prompts=1,
    sampling_steps=1,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        # Products of bf16 matrices are slow on a processor without AVX-512: one iteration here instead of five.
        patch.setattr(muon, "orthogonal", partial(orthogonal, iterations=1))
        figures = build(folder / "out", folder / "work", TINY, force=True)
    return folder, figures


def test_a_built_base_opens_with_plain_diffusers_and_with_mnemon(built):
    folder, _ = built
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "out")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red mug", num_inference_steps=1, output_type="pt").images
    assert image.shape == (1, 3, 64, 64) and torch.isfinite(image).all()
    base = load_base(str(folder / "out"))
    assert base.family == "sd" and base.resolution == 64
    assert WorldEncoders(folder / "out").identity(torch.rand(2, 3, 64, 64)).shape == (2, 128)


def test_every_figure_of_the_gates_but_the_taught_one_is_measured(built):
    _, figures = built
    assert set(GATES) - set(figures) == {"single_lora_identity_ratio"}


def test_no_file_is_larger_than_a_shard(built):
    folder, _ = built
    assert max(file.stat().st_size for file in (folder / "out").rglob("*") if file.is_file()) < 16 * 2**20


def test_the_card_says_what_was_missed(built):
    folder, _ = built
    write_card(folder / "out", {"single_lora_identity_ratio": 0.1})
    card = (folder / "out" / "README.md").read_text()
    assert "single_lora_identity_ratio is 0.100, its gate 0.8" in card
    assert json.loads((folder / "out" / "figures.json").read_text())["figures"]["single_lora_identity_ratio"] == 0.1


def test_building_again_with_other_numbers_is_refused(built):
    folder, _ = built
    with pytest.raises(MnemonError, match="another recipe"):
        build(folder / "out", folder / "work", replace(TINY, denoiser_steps=2), force=True)


def test_a_missed_gate_stops_the_build_unless_told_to_go_on():
    poor = {"autoencoder_psnr_db": 20.0}
    with pytest.raises(MnemonError, match="autoencoder_psnr_db is 20.000, its gate 26.0"):
        require("autoencoder", poor, force=False)
    require("autoencoder", poor, force=True)
    assert misses({"autoencoder_psnr_db": 27.0}) == []


def line(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 3)


def train_line(folder, steps, module):
    def loss(generator):
        inputs = torch.randn(8, 3, generator=generator)
        value = (module(inputs) - inputs).square().mean()
        return value, {"loss": value.item()}

    average = EMA(module)
    # A snapshot is taken after every step.
    fit("line", folder, {"m": module}, loss, Schedule(steps, 0.1, muon=1.0), seed=1, averages={"m": average},
        checkpoint_seconds=0)  # fmt: skip
    return average.shadow


def test_a_killed_stage_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole = train_line(tmp_path / "whole", 6, line())

    from mnemon.world.recipe import fit as loop

    saves = []

    def killed(*args):
        real(*args)
        saves.append(1)
        if len(saves) == 3:
            raise KeyboardInterrupt

    real = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train_line(tmp_path / "cut", 6, line())
    monkeypatch.setattr(loop, "save_checkpoint", real)
    resumed = train_line(tmp_path / "cut", 6, line(seed=9))  # its start does not matter: the snapshot has everything
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_the_rate_warms_up_holds_and_falls():
    schedule = Schedule(100, 1.0, warmup=10, hold=0.5, floor=0.1)
    rates = [schedule.lr_at(step) for step in (0, 9, 40, 75, 99)]
    assert rates[0] == pytest.approx(0.1) and rates[1] == rates[2] == 1.0
    assert rates[3] == pytest.approx(0.55) and rates[4] == pytest.approx(0.118)


def test_muon_turns_matrices_by_orthogonal_steps():
    torch.manual_seed(0)
    steps = orthogonal(torch.randn(6, 20))
    values = torch.linalg.svdvals(steps)
    assert values.min() > 0.5 and values.max() < 1.3  # the iteration is meant to be rough
    embedding, layer = nn.Embedding(5, 4), nn.Linear(4, 4)
    groups = Muon([embedding, layer], 0.1).param_groups
    assert [len(group["params"]) for group in groups] == [1, 2]  # the weight; the embedding and the bias


def test_every_word_of_a_caption_is_one_token_and_other_words_can_be_spelled(tmp_path):
    tokenizer = build_tokenizer(tmp_path)
    assert all(len(tokenizer(word).input_ids) == 3 for word in vocabulary())
    assert tokenizer.eos_token_id == tokenizer.pad_token_id and len(tokenizer("xylophone").input_ids) > 3


def test_pairs_show_one_thing_twice_and_labels_are_numbers_of_names(tmp_path):
    drawn = pairs(tmp_path, seed=1, count=4)
    assert len(drawn) == 8
    assert (drawn.labels["noun"][0::2] == drawn.labels["noun"][1::2]).all()
    made = scenes(tmp_path, seed=1, count=30)
    two = made.present.sum(1) == 2
    assert two.any() and (made.labels["noun"][two] == -1).all()
    again = scenes(tmp_path, seed=1, count=30)  # from the file
    assert torch.equal(again.pixels, made.pixels) and again.captions == made.captions


def test_test_prompts_name_what_their_numbers_say():
    prompts, numbers = single_prompts(5, seed=0)
    for row, prompt in enumerate(prompts):
        assert all(words[int(numbers[name][row])] in prompt for name, words in ATTRIBUTES.items())
    prompts, present = pair_prompts(5, seed=0)
    assert (present.sum(1) == 2).all() and all(" and " in prompt for prompt in prompts)
