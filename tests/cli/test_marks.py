"""Weights of words and strengths of concepts in the prompts of `generate` and `preview`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnemon import api
from mnemon.library import Library
from mnemon.sampling import read_metadata
from tests.cli.conftest import Command

LIB = ("--library", "lib", "--steps", 2, "--number", 1)


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_an_image_is_made_again_from_what_it_says(mnemon: Command, taught: Path) -> None:
    typed = "a (photo:1.4) of <sip:0.5> mug", "[night] (<tom>:1.2)", "0,0,0.5,1:(<sip>:1.3)"
    how = (typed[0], "--negative", typed[1], "--region", typed[2], *LIB)
    (first,) = mnemon("generate", *how, "--json").json
    facts = read_metadata(Path(first))
    assert (facts.prompt, facts.negative_prompt) == typed[:2]
    assert facts.regions == ("0,0,0.5,1:a photo of (<sip>:1.3) mug",)
    again = (facts.prompt, "--negative", facts.negative_prompt, "--region", facts.regions[0], *LIB)
    (second,) = mnemon("generate", *again, "--json").json
    assert (pixels(first) == pixels(second)).all()
    (plain,) = mnemon("generate", "a photo of <sip> mug", "--negative", "night <tom>", *LIB, "--json").json
    assert (pixels(first) != pixels(plain)).any()


def test_a_layout_keeps_strengths(mnemon: Command, taught: Path) -> None:
    (image,) = mnemon("generate", "(<sip:0.5>:1.2) and <tom> in (snow:1.3)", "--auto", *LIB, "--json").json
    facts = read_metadata(Path(image))
    assert facts.prompt == "(:1.2) and in (snow:1.3)"
    assert [text.partition(":")[2] for text in facts.regions] == [
        "a photo of <sip:0.5> mug in snow",
        "a photo of <tom> cat in snow",
    ]


def test_a_noun_with_parentheses_is_text(mnemon: Command, taught: Path, world_folder: Path) -> None:
    mnemon("export", "sip", "--library", "lib", "--as", "kohya", "--out", "out")
    files = ("out/sip.safetensors", "out/embeddings/sip.safetensors")
    mnemon("import", *files, "--library", "toy", "--base", world_folder, "--noun", "mug (toy)", "--no-score")
    (image,) = mnemon(
        "generate", "two things", "--region", "0,0,1,1:<sip>", "--library", "toy", *LIB[2:], "--json"
    ).json
    assert read_metadata(Path(image)).regions == (r"0,0,1,1:a photo of <sip> mug \(toy\)",)
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        sample = api.previewing.compose_library  # type: ignore[attr-defined]

        def listening(library: Library, base: object) -> object:
            composed = sample(library, base)
            draw = composed.sample
            composed.sample = lambda prompts, *how: seen.extend(prompts) or draw(prompts, *how)
            return composed

        patch.setattr(api.previewing, "compose_library", listening)  # type: ignore[attr-defined]
        api.preview("toy", "page.html", prompts=["a photo of {}", "a (red:1.3) {}"], number=1)
    assert [str(text) for text in seen] == ["a photo of <sip> mug (toy)", "a red <sip> mug (toy)"]
    assert type(seen[0]) is str and seen[1] != str(seen[1])  # of the second one a word has a weight


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a < sip > mug"], "did you mean <sip>?"),
        (["a mug <lora:sip:0.5>"], "did you mean <sip:0.5>?"),
        (["a mug", "--negative", "embedding:tom"], "did you mean <tom>?"),
        (["a mug", "--region", "0,0,1,1:<sip:much>"], "write <sip:0.8>"),
        (["a mug", "--region", "0,0,1,1:<sib>"], "Did you mean <sip>?"),
    ],
)
def test_what_is_nearly_right_ends_the_command(mnemon: Command, taught: Path, arguments: list[str], said: str) -> None:
    result = mnemon("generate", *arguments, *LIB)
    assert result.code == 1 and said in result.err and not Path("pictures").exists()


def test_the_bare_base_reads_weights_and_knows_no_concept(mnemon: Command, world_folder: Path) -> None:
    few = ("--base", world_folder, *LIB[2:])
    paths = [mnemon("generate", text, *few, "--json").json[0] for text in ("a red mug", "a (red:1.8) mug")]
    assert (pixels(paths[0]) != pixels(paths[1])).any()
    shutil.rmtree("pictures")
    assert "Known concepts: none yet" in mnemon("generate", "<sip:0.5>", *few).err
