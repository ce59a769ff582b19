from dataclasses import replace

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.methods.lora import Lora
from mnemon.methods.replay import Replay
from mnemon.training.generated import replay_images
from tests.contract.table import QUICK, assert_same_learned, learn
from tests.tiny import tiny_sd_base

SMALL = {"rank": 2, "steps": 3, "batch_size": 2}


def test_images_of_every_earlier_concept_are_generated_and_trained_on() -> None:
    base, method = tiny_sd_base(), Replay(**SMALL, num_replay_images=2)
    rex = learn(base, method, "rex")
    assert_same_learned(rex, learn(base, Lora(**SMALL), "rex"))  # nothing to rehearse
    kiki = learn(base, method, "kiki", [rex])
    again = replay_images(base, method, [rex, kiki], seed=0, sampling=replace(QUICK, num_inference_steps=3))
    assert again is not None and sorted(again.prompts) == ["a photo of <kiki> dog"] * 2 + ["a photo of <rex> dog"] * 2
    quick = replay_images(base, method, [rex, kiki], seed=0, sampling=QUICK)
    assert quick is not None and quick.prompts == again.prompts
    assert again.latents.flatten(1).unique(dim=0).shape[0] == 4
    assert not torch.equal(again.latents, quick.latents)
    plain = learn(base, Lora(**SMALL), "kiki", [rex])
    assert not torch.equal(kiki.tokens["text_encoder"], plain.tokens["text_encoder"])


def test_nothing_to_rehearse_is_no_replay() -> None:
    with pytest.raises(MnemonError, match="num_replay_images"):
        Replay(num_replay_images=0)
