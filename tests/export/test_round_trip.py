"""What is exported draws, in plain diffusers, the image that mnemon draws."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mnemon.adapters import LowRank
from mnemon.errors import MnemonError
from mnemon.export import RankSelection, export
from mnemon.library import Library
from mnemon.models import Base
from tests.export.conftest import Plain, assert_same, assert_unlike, bare, card_code, concept, drawn

Libraries = Callable[..., Library]
PROMPT = "a photo of <rex> dog in snow"


def test_a_low_rank_concept_as_its_card_tells_in_both_formats(
    base: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    library = library_of(base, concept(base, "rex", 1, vectors=2), concept(base, "tom", 2))
    out = export(library, base, tmp_path / "out", ["rex"])
    assert out.concepts == ("rex",) and out.lora is not None and out.lora.error < 1e-6
    expected = drawn(library, base, PROMPT, ("rex",))
    assert_same(plain.sample(base, PROMPT, code=card_code(out.folder)), expected)
    assert_unlike(expected, drawn(library, base, PROMPT))

    kohya = export(library, base, tmp_path / "kohya", ["rex"], kind="kohya")
    code = card_code(out.folder).replace(f'"{out.folder}", weight_name="pytorch_lora_weights.', f'"{kohya.folder}/rex.')
    assert str(kohya.folder) in code
    assert_same(plain.sample(base, PROMPT, code=code), expected)


def test_two_concepts_merged_are_one_lora_of_both_ranks(
    base: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    library = library_of(base, concept(base, "tom", 1), concept(base, "rex", 2))
    out = export(library, base, tmp_path / "out")
    assert out.lora is not None and set(out.lora.ranks.values()) == {4} and out.lora.error < 1e-6
    prompt = "<rex> dog and <tom> dog on the beach"
    assert_same(plain.sample(base, prompt, code=card_code(out.folder)), drawn(library, base, prompt))


@pytest.mark.parametrize("kind", ["masked", "sparse", "dense"])
def test_a_change_of_full_rank_as_a_lora(
    sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path, kind: str
) -> None:
    library = library_of(sd, concept(sd, "rex", 1, kind))
    out = export(library, sd, tmp_path / "out")
    assert_same(plain.sample(sd, PROMPT, code=card_code(out.folder)), drawn(library, sd, PROMPT))


def test_a_folder_that_knows_the_tokens(base: Base, library_of: Libraries, plain: Plain, tmp_path: Path) -> None:
    library = library_of(base, concept(base, "rex", 1, "masked", vectors=3), concept(base, "tom", 2))
    before = bare(base, "a dog")
    out = export(library, base, tmp_path / "out", kind="folder")
    for prompt in (PROMPT, "<tom> dog beside <rex> in the snow"):
        assert_same(plain.sample(base, prompt, base_folder=out.folder), drawn(library, base, prompt))
    assert torch.equal(bare(base, "a dog"), before)
    assert "<rex>" not in base.encoders[0].tokenizer.get_vocab()  # type: ignore[attr-defined]


def test_a_checkpoint_in_one_file(base: Base, library_of: Libraries, plain: Plain, tmp_path: Path) -> None:
    library = library_of(base, concept(base, "rex", 1, "dense"))
    out = export(library, base, tmp_path / "out", kind="checkpoint")
    checkpoint, code = out.folder / "rex.safetensors", card_code(export(library, base, tmp_path / "lora").folder)
    code = "\n".join(line for line in code.splitlines() if "load_lora_weights" not in line)
    assert_same(plain.sample(base, PROMPT, checkpoint=checkpoint, code=code), drawn(library, base, PROMPT))


def test_a_method_that_combines_per_prompt_goes_out_one_concept_at_a_time(
    sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    library = library_of(sd, concept(sd, "rex", 1), concept(sd, "tom", 2), method="lora-compose")
    with pytest.raises(MnemonError, match="one concept at a time"):
        export(library, sd, tmp_path / "both")
    out = export(library, sd, tmp_path / "out", ["rex"])
    assert_same(plain.sample(sd, PROMPT, code=card_code(out.folder)), drawn(library, sd, PROMPT, ("rex",)))
    assert not (tmp_path / "both").exists()


def test_one_concept_of_a_change_that_all_share_has_the_change(
    sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    library = library_of(sd, concept(sd, "kiki", 1), replace(concept(sd, "rex", 2), deltas={}), method="joint")
    out = export(library, sd, tmp_path / "out", ["rex"])
    assert out.lora is not None and set(out.lora.ranks.values()) == {2}
    assert "one change of the weights for all concepts" in out.notes[0]
    assert out.notes[0] in (out.folder / "README.md").read_text()
    expected = drawn(library, sd, PROMPT)
    assert_same(plain.sample(sd, PROMPT, code=card_code(out.folder)), expected)
    assert_unlike(expected, drawn(library, sd, PROMPT, ("rex",)))
    assert not export(library, sd, tmp_path / "both").notes
    alone = export(library, sd, tmp_path / "tokens", ["rex"], kind="embedding")
    assert alone.notes == ("The tokens alone: the concepts' changes of the weights are not in these files.",)


def test_layerwise_tokens_are_refused_with_the_reason(sd: Base, library_of: Libraries, tmp_path: Path) -> None:
    one = concept(sd, "rex", 1)
    tokens = {
        encoder: vectors.expand(len(sd.cross_attention_layers()), -1, -1) for encoder, vectors in one.tokens.items()
    }
    library = library_of(sd, replace(one, tokens=tokens))
    with pytest.raises(MnemonError, match="<rex> has vectors of its own for every layer"):
        export(library, sd, tmp_path / "out")


def test_half_precision_is_half_the_bytes_and_nearly_the_image(
    sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    library = library_of(sd, concept(sd, "rex", 1))
    whole = export(library, sd, tmp_path / "whole", kind="folder")
    half = export(library, sd, tmp_path / "half", kind="folder", dtype=torch.float16)
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (half.folder / unet).stat().st_size < 0.6 * (whole.folder / unet).stat().st_size
    assert next(sd.denoiser.parameters()).dtype == torch.float32
    lora = export(library, sd, tmp_path / "lora", dtype=torch.float16)
    image = plain.sample(sd, PROMPT, code=card_code(lora.folder))
    assert_same(image, drawn(library, sd, PROMPT), within=0.02)


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_what_16_bits_do_not_hold_is_said(sd: Base, library_of: Libraries, tmp_path: Path, size: float) -> None:
    one = concept(sd, "rex", 1)
    deltas = {
        target: LowRank(size * delta.up.data, delta.down.data)
        for target, delta in one.deltas.items()
        if isinstance(delta, LowRank)
    }
    library = library_of(sd, replace(one, deltas=deltas))
    made = export(library, sd, tmp_path / "half", dtype=torch.float16)
    assert any("16 bits hold" in note for note in made.notes) == (size < 1)
    assert not export(library, sd, tmp_path / "whole").notes


def test_the_error_of_fewer_ranks_is_told_and_true(
    sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    library = library_of(sd, concept(sd, "rex", 1, "dense"))
    out = export(library, sd, tmp_path / "out", rank_selection=RankSelection(rank=4))
    assert out.lora is not None
    off, total = 0.0, 0.0
    for target, delta in library.learned()[0].deltas.items():
        matrix = delta.matrix().double()
        values = torch.linalg.svdvals(matrix)
        off, total = off + values[4:].square().sum().item(), total + values.square().sum().item()
        up, down = (out.lora.tensors[f"unet.{target}.lora_{part}.weight"].double() for part in "BA")
        assert (up @ down - matrix).norm() == pytest.approx(values[4:].square().sum().sqrt().item(), rel=1e-4)
    assert out.lora.error == pytest.approx((off / total) ** 0.5, rel=1e-4)  # Eckart-Young: none is closer
    assert f"{out.lora.error:.2e}" in out.notes[0] and f"{out.lora.error:.2e}" in (out.folder / "README.md").read_text()

    share = export(library, sd, tmp_path / "share", rank_selection=RankSelection(energy=0.9)).lora
    assert share is not None and 0 < share.error <= (1 - 0.9) ** 0.5
    assert all(rank < min(sd.target_modules()[target].weight.shape) for target, rank in share.ranks.items())


def test_transformer_families_as_the_card_tells_and_as_a_folder(
    transformer: Base, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    base = transformer
    library = library_of(base, concept(base, "rex", 1, vectors=2), concept(base, "tom", 2, "masked"))
    expected = drawn(library, base, PROMPT)
    assert_unlike(expected, bare(base, "a photo of dog in snow"))
    out, whole = export(library, base, tmp_path / "out"), export(library, base, tmp_path / "whole", kind="folder")
    said = (whole.folder / "README.md").read_text().split('pipeline("a photo of ')[1].split('")')[0]
    prompt = PROMPT.replace("<rex> dog", said)
    assert_same(plain.sample(base, prompt, base_folder=whole.folder), expected)
    assert_same(plain.sample(base, prompt, code=card_code(out.folder)), expected)


def test_transformer_families_for_comfyui(transformer: Base, library_of: Libraries, tmp_path: Path) -> None:
    """The keys that its loader maps, alpha beside them; what is not low-rank is held as it is."""
    base = transformer
    library = library_of(base, concept(base, "rex", 1), concept(base, "tom", 2, "masked"))
    made = export(library, base, tmp_path / "rex", ["rex"], kind="comfy")
    assert any("embedding:" in note for note in made.notes) == (base.family not in ("sd3", "flux"))
    rex = made.lora
    tom = export(library, base, tmp_path / "tom", ["tom"], kind="comfy").lora
    assert rex is not None and tom is not None and rex.error < 1e-6 and tom.error == 0
    for target in base.target_modules():
        up, down, alpha = (
            rex.tensors[f"transformer.{target}.{end}"] for end in ("lora_B.weight", "lora_A.weight", "alpha")
        )
        kept, other = library.learned()
        torch.testing.assert_close(alpha / 2 * (up @ down), kept.deltas[target].matrix())
        torch.testing.assert_close(tom.tensors[f"transformer.{target}.diff"], other.deltas[target].matrix())
