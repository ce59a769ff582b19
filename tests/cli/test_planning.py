"""`mnemon plan`, and the levers it names in `learn` and `generate`."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command

ROWS = {"denoiser", "text_encoder", "vae", "earlier concepts", "trained parameters", "optimiser", "latents of photos"}


def test_a_plan_says_what_learning_and_drawing_take(mnemon: Command, world_folder: Path) -> None:
    asked = ("plan", "--base", world_folder, "--method", "lora", "--set", "rank=2", "--batch", 2)
    plain, packed = mnemon(*asked, "--json").json, mnemon(*asked, "--json", "--weights", "8bit", "--checkpointing").json
    assert plain["learning"].keys() > ROWS and plain["family"] == "sd" and plain["levers"]["batch"] == 2
    assert plain["peak"] == max(sum(plain["learning"].values()), sum(plain["drawing"].values()))
    assert packed["peak"] < plain["peak"] and packed["trained"] == plain["trained"] > 0
    shown = mnemon(*asked, "--weights", "8bit", "--levers")
    assert (
        shown.code == 0
        and "at the peak" in shown.out
        and "--weights 4bit" in shown.out
        and "Fits into: 8 GB" in shown.out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--base", "nowhere"), "There is no base 'nowhere' to plan for"),
        (("--method", "lroa"), "did you mean 'lora'"),
        (("--resolution", 33), "multiple of"),
        (("--accumulate", 99), "cannot be computed in 99 parts"),
        (("--offload-text",), "leave out --offload-text"),
        (("--set", "rank"), "has no value"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_error(
    mnemon: Command, world_folder: Path, arguments: tuple[object, ...], message: str
) -> None:
    result = mnemon("plan", *(() if "--base" in arguments else ("--base", world_folder)), *arguments)
    assert result.code == 1 and message in result.err and result.err.count("Error:") == 1


def test_a_config_that_cannot_be_read_is_named(mnemon: Command, tmp_path: Path) -> None:
    for text, message in (("{", "cannot be read"), ('{"_class_name": "WanPipeline"}', "does not know")):
        (tmp_path / "model_index.json").write_text(text)
        result = mnemon("plan", "--base", tmp_path)
        assert result.code == 1 and message in result.err


def test_learning_and_drawing_with_packed_weights(teach: Command, mnemon: Command) -> None:
    assert teach("--library", "lib", "--weights", "8bit", "--no-score").code == 0
    for weights in ("8bit", "bf16", "fp32"):
        arguments = ("a photo of <sip> mug", "-l", "lib", "--steps", 1, "-n", 1, "--weights", weights, "-o", weights)
        assert mnemon("generate", *arguments).code == 0 and list(Path(weights).glob("*.png"))
    refused = mnemon("generate", "a mug", "-l", "lib", "--offload-text")
    assert refused.code == 1 and "leave out --offload-text" in refused.err
