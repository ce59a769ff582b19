import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mnemon.classification import FAMILIES, Backbone, load_backbone
from mnemon.errors import MnemonError
from tests.classification.small import BLOCKS, WIDTH, backbone, backbone_folder, small_model

EVERY = pytest.mark.parametrize("family", [family for family in FAMILIES if family != "clip"])
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@EVERY
def test_features_are_the_class_token_after_the_last_norm(family: str) -> None:
    model, on = small_model(family).eval(), backbone(family)
    output = model(pixel_values=IMAGES)
    expected = output.pooler_output if family == "clip_vision_model" else output.last_hidden_state[:, 0]
    torch.testing.assert_close(on.features(IMAGES), expected, atol=1e-5, rtol=1e-5)
    assert on.width == WIDTH and on.depth == BLOCKS and len(on.projections("qkv")) == 3 * BLOCKS


@EVERY
def test_a_prefix_is_read_by_keys_and_values_alone(family: str) -> None:
    on, block = backbone(family), 1
    length, heads = 3, on.config.num_attention_heads
    prefix = torch.randn(2, len(IMAGES), length, WIDTH, generator=torch.Generator().manual_seed(1))
    attention = on._attention[block]
    q, k, v = (on.projections(one)[list(on.projections(one))[block]] for one in ("q", "k", "v"))  # type: ignore[arg-type]
    seen: dict[str, torch.Tensor] = {}
    out = next(layer for name, layer in attention.named_children() if name in ("o_proj", "out_proj"))
    hooks = [
        q.register_forward_pre_hook(lambda _, inputs: seen.update(read=inputs[0])),
        out.register_forward_pre_hook(lambda _, inputs: seen.update(given=inputs[0])),
    ]
    on.features(IMAGES, {block: (prefix[0], prefix[1])})
    for hook in hooks:
        hook.remove()

    def by_head(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(-1, (heads, -1)).transpose(1, 2)

    read = seen["read"]
    keys = by_head(torch.cat([prefix[0], k(read)], 1))
    values = by_head(torch.cat([prefix[1], v(read)], 1))
    scores = by_head(q(read)) @ keys.mT / (WIDTH // heads) ** 0.5
    expected = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen["given"], expected, atol=1e-5, rtol=1e-5)


def test_a_prefix_belongs_to_its_image_wherever_that_stands() -> None:
    """What a reshape in place of a permutation gets wrong (dualprompt-pytorch#8)."""
    on = backbone()
    prefix = torch.randn(2, len(IMAGES), 4, WIDTH, generator=torch.Generator().manual_seed(2))
    together = on.features(IMAGES, {0: (prefix[0], prefix[1])})
    for row in range(len(IMAGES)):
        alone = on.features(IMAGES[row : row + 1], {0: (prefix[0, row : row + 1], prefix[1, row : row + 1])})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(on.features(IMAGES), together, atol=1e-3)


@EVERY
def test_tokens_stand_before_all_others_and_are_read(family: str) -> None:
    on = backbone(family)
    tokens = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(3))
    read = on.features(IMAGES, tokens=tokens)
    order = [2, 0, 3, 1]  # tokens have no places of their own
    torch.testing.assert_close(on.features(IMAGES, tokens=tokens[:, order]), read, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(read, on.features(IMAGES), atol=1e-3)
    torch.testing.assert_close(on.features(IMAGES, tokens=tokens[:, :0]), on.features(IMAGES))


@EVERY
def test_a_backbone_opens_from_a_folder(family: str, tmp_path: Path) -> None:
    on = load_backbone(str(backbone_folder(tmp_path, family)))
    torch.testing.assert_close(on.features(IMAGES), backbone(family).features(IMAGES), atol=1e-6, rtol=1e-6)
    assert on.mean == (0.5, 0.5, 0.5)
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (tmp_path / family / "preprocessor_config.json").write_text(json.dumps(said))
    assert load_backbone(str(tmp_path / family)).mean == (0.1, 0.2, 0.3)


def test_the_head_of_a_classifier_is_left_out(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    config = backbone().config
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    assert load_backbone(str(tmp_path)).fingerprint != backbone().fingerprint
    assert len(load_backbone(str(tmp_path)).layers()) == 6 * BLOCKS


def test_what_is_no_backbone_is_refused_with_a_remedy(tmp_path: Path) -> None:
    import transformers

    with pytest.raises(MnemonError, match="There is no backbone"):
        load_backbone(str(tmp_path / "nowhere"))
    transformers.ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(MnemonError, match="of the family 'resnet', which is no backbone here: give one of vit, deit"):
        load_backbone(str(tmp_path))
    backbone().config.save_pretrained(tmp_path / "empty")
    with pytest.raises(MnemonError, match="weights of the backbone .* cannot be read"):
        load_backbone(str(tmp_path / "empty"))
    model = torch.nn.Linear(2, 2)
    model.config = transformers.ViTConfig()  # type: ignore[assignment]
    with pytest.raises(MnemonError, match="no vision transformer with queries"):
        Backbone(model, "two")


def test_tensors_that_are_missing_are_no_random_numbers(tmp_path: Path) -> None:
    folder = backbone_folder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    lost = sorted(tensors)[-1]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(MnemonError, match="lack 1 tensors, such as"):
        load_backbone(str(folder))


def test_a_relative_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_backbone("vit").name == str(tmp_path / "vit")
