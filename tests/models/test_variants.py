"""Folders whose weights are variants: read where they are the only ones, or asked for."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mnemon.api.opening import base_named
from mnemon.errors import MnemonError
from mnemon.models import load_base
from mnemon.models.base import Base
from tests.tiny import tiny_sd, tiny_sd_base
from tests.tiny_transformers import tiny_flux


def first_weights(base: Base) -> torch.Tensor:
    return next(iter(base.target_modules().values())).weight


@pytest.mark.parametrize("shard", ["10GB", "60KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema", "non_ema"])
def test_the_only_weights_are_read_whatever_their_variant(tmp_path: Path, variant: str, shard: str) -> None:
    tiny_sd().save_pretrained(tmp_path, variant=variant, max_shard_size=shard)
    assert (len(list((tmp_path / "unet").glob(f"*.{variant}-*.safetensors"))) > 1) == (shard == "60KB")
    base = load_base(str(tmp_path))
    expected = tiny_sd().unet.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in base.denoiser.state_dict().items())
    assert len(base.fingerprint) == 64


def test_a_transformers_variant_is_read_and_half_precision_is_nearly_the_same(tmp_path: Path) -> None:
    tiny_flux().to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    base = load_base(str(tmp_path))
    assert base.dtype == torch.float32
    torch.testing.assert_close(base.denoiser.state_dict(), tiny_flux().transformer.state_dict(), atol=1e-3, rtol=1e-3)


def test_beside_plain_weights_a_variant_is_read_only_if_asked_for(tmp_path: Path) -> None:
    tiny_sd().save_pretrained(tmp_path)
    alone = load_base(str(tmp_path)).fingerprint
    tiny_sd(seed=1).save_pretrained(tmp_path, variant="ema")
    plain, ema = load_base(str(tmp_path)), base_named(f"{tmp_path}:ema")
    assert plain.fingerprint == alone != ema.fingerprint and ema.name == f"{tmp_path}:ema"
    assert torch.equal(first_weights(plain), first_weights(load_base(str(tmp_path))))
    assert not torch.equal(first_weights(plain), first_weights(ema))
    with pytest.raises(MnemonError, match="has no variant 'fp8': there are the variant ema and plain weights"):
        load_base(f"{tmp_path}:fp8")


def test_each_part_has_its_own_choice(tmp_path: Path) -> None:
    tiny_sd(seed=1).save_pretrained(tmp_path, variant="fp16")
    shutil.copyfile(tmp_path / "vae/diffusion_pytorch_model.fp16.safetensors", tmp_path / "vae/kept.safetensors")
    tiny_sd().text_encoder.save_pretrained(tmp_path / "text_encoder")  # plain ones beside the variant
    base = load_base(str(tmp_path))
    table = base.encoders[0].table.weight
    assert torch.equal(table, tiny_sd().text_encoder.get_input_embeddings().weight)
    assert torch.equal(
        first_weights(base), tiny_sd(seed=1).unet.get_submodule(next(iter(base.target_modules()))).weight
    )


def test_several_variants_and_no_plain_weights_need_a_choice(tmp_path: Path) -> None:
    for seed, variant in enumerate(("bf16", "fp16")):
        tiny_sd(seed=seed).save_pretrained(tmp_path, variant=variant)
    with pytest.raises(MnemonError, match=r"the variant bf16 and the variant fp16: say which with '.*:bf16'"):
        load_base(str(tmp_path))
    first, second = (first_weights(load_base(f"{tmp_path}:{variant}")) for variant in ("bf16", "fp16"))
    assert torch.equal(first, first_weights(tiny_sd_base())) and not torch.equal(first, second)


def test_without_weights_it_is_said_what_is_there(tmp_path: Path) -> None:
    tiny_sd().save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "unet" / "mine.safetensors")
    with pytest.raises(MnemonError, match="unet' has no weights: .*there is config.json, mine.safetensors"):
        load_base(str(tmp_path))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_tensors_that_a_file_lacks_are_named(tmp_path: Path, part: str) -> None:
    tiny_sd().save_pretrained(tmp_path)
    (file,) = (tmp_path / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = sorted(key for key in tensors if key.endswith("weight"))[3]
    del tensors[lost]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        MnemonError, match=rf"{part}' lack 1 tensors of a .* such as '.*{lost.rpartition('.')[0][-12:]}"
    ):
        load_base(str(tmp_path))


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    tiny_sd().save_pretrained(tmp_path, variant="fp16", max_shard_size="60KB")
    sorted((tmp_path / "unet").glob("*.safetensors"))[1].unlink()
    with pytest.raises(MnemonError, match=r"unet' lacks 1 of the shards that its index names, such as 'diff"):
        load_base(str(tmp_path))


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"metadata": {}, "weight_map": "x"}', '{"weight_map": {}}', None])
def test_a_damaged_index_of_shards_is_named(tmp_path: Path, text: str | None, variant: str | None) -> None:
    tiny_sd().save_pretrained(tmp_path, variant=variant, max_shard_size="200KB")
    (index,) = (tmp_path / "unet").glob("*.index*.json")
    if text is None:
        index.unlink()
    else:
        index.write_text(text)
    with pytest.raises(MnemonError, match="has shards .* no index" if text is None else f"'{index}'.* is damaged"):
        load_base(str(tmp_path))


def test_the_index_of_another_variant_is_not_asked(tmp_path: Path) -> None:
    tiny_sd().save_pretrained(tmp_path, max_shard_size="200KB")
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text("")
    load_base(str(tmp_path))
