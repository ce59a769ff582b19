"""Precision and memory at the command line: what is picked, remembered and said."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon import api
from mnemon.library import Library
from mnemon.models.quantization import weights_of
from mnemon.training import session
from tests.cli.conftest import Command


def test_a_memory_is_planned_for_and_the_choice_is_said(teach: Command) -> None:
    learned = teach("--no-score", "--memory", "1 GB")
    assert learned.code == 0
    assert "in 1 GB: weights in fp32, batch 2, 8 images at once for scores" in " ".join(learned.err.split())
    entry = Library.open("mnemon-library").history()[-1]
    assert entry.settings["weights"] == "fp32" and entry.settings["training"]["batch_size"] == 2


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ("0.001GB", "does not fit 0.001 GB"),
        ("much", "'--memory much' is no amount of memory"),
        ("-3", "no amount of memory"),
        ("nan", "no amount of memory"),
    ],
)
def test_a_memory_that_does_not_suffice_is_refused(teach: Command, memory: str, message: str) -> None:
    refused = teach(f"--memory={memory}")
    assert refused.code == 1 and message in " ".join(refused.err.split())
    assert not Path("mnemon-library").exists()


def test_a_library_remembers_the_precision_it_was_learned_in(teach: Command, mnemon: Command) -> None:
    assert teach("--no-score", "--weights", "bf16").code == 0
    library = Library.open("mnemon-library")
    assert weights_of(api.open_base(None, library.path)) == "bf16"
    assert weights_of(api.open_base(None, library.path, "8bit")) == "8bit"
    generated = mnemon("generate", "a photo of <sip>", "-n", 1, "--steps", 1)
    assert generated.code == 0
    assert teach("--no-score", source="tom").code == 0
    assert [entry.settings["weights"] for entry in Library.open("mnemon-library").history()] == ["bf16", "bf16"]


@pytest.mark.parametrize("command", ["evaluate", "preview", "diff 1 2", "export", "generate <sip>"])
def test_every_command_takes_a_precision(
    taught: Path, mnemon: Command, monkeypatch: pytest.MonkeyPatch, command: str, quick_plots: None
) -> None:
    asked: list[Any] = []
    real = api.open_base
    monkeypatch.setattr(api, "open_base", lambda *given: asked.append(given[2]) or real(*given))
    done = mnemon(*command.split(), "-l", "lib", "--weights", "bf16")
    assert done.code == 0 and asked == ["bf16"]


@pytest.mark.parametrize(
    ("options", "lever"),
    [
        ((), "--gradient-checkpointing"),
        (("--gradient-checkpointing",), "--gradient-accumulation-steps 2"),
        (("--gradient-checkpointing", "--accumulate", 2), "--weights bf16"),
        (("--gradient-checkpointing", "--accumulate", 2, "--weights", "8bit"), "--weights 4bit"),
    ],
)
def test_a_full_gpu_is_one_sentence_with_the_next_lever(
    teach: Command, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], lever: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1")

    monkeypatch.setattr(session, "train", full)
    refused = teach("--no-score", *options)
    said = " ".join(refused.err.split())
    assert refused.code == 1 and lever in said and "Tried to allocate 2.00 GiB)" in said and "Traceback" not in said


def test_a_full_gpu_while_images_are_sampled(taught: Path, mnemon: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("mnemon.sampling.composing.sample", full)
    refused = mnemon("generate", "<sip>", "-l", taught)
    assert refused.code == 1 and "--batch-size 1" in " ".join(refused.err.split())


def test_a_plan_for_a_memory_is_what_learn_picks(mnemon: Command, world_folder: Path) -> None:
    planned = mnemon("plan", "--base", world_folder, "--method", "lora", "--memory", "2GB", "--batch", 3, "--json")
    assert planned.json["levers"]["batch"] == 3 and planned.json["levers"]["images_at_once"] == 8
    assert "In 2GB: weights in fp32, batch 3" in " ".join(planned.err.split())
