#!/usr/bin/env bash
# diffusers 0.42.1: of a kohya file whose layers have different alphas, every layer gets the most frequent one.
#
# A LoRA acts with the scale alpha / rank, and kohya's files store an alpha for each layer: tools that weigh blocks or
# merge LoRAs write different ones. Loaded into a U-Net, the odd alphas become an `alpha_pattern` under keys that no module
# has (they end in `.down.weight`), so the layer below, of alpha 1 and rank 4, acts four times as strongly as it was
# trained. PEFT 0.21.2 says so as a RuntimeWarning about ignored keys; nothing is raised. A file whose ranks differ at one
# alpha is read rightly, so mnemon writes one alpha for all layers and puts the rest of the scale into the factors.
#
# Expected output:
#   alphas 4 and 1, ranks 4: scales in the file [0.25, 1.0], in diffusers [1.0]
#   alphas 4 and 4, ranks 4 and 2: scales in the file [1.0, 2.0], in diffusers [1.0, 2.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2
cd "$folder"
venv/bin/python -W ignore - >found.txt <<'PY'
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader


def small_unet():
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def scales_when_loaded(alphas, ranks):
    """A kohya file for every `attn2.to_k`; the last layer has the second alpha and rank."""
    unet = small_unet()
    layers = {name: layer for name, layer in unet.named_modules() if name.endswith("attn2.to_k")}
    file = {}
    for name, layer in layers.items():
        odd = name == list(layers)[-1]
        alpha, rank = alphas[odd], ranks[odd]
        key = "lora_unet_" + name.replace(".", "_")
        file[f"{key}.lora_down.weight"] = torch.ones(rank, layer.in_features)
        file[f"{key}.lora_up.weight"] = torch.ones(layer.out_features, rank)
        file[f"{key}.alpha"] = torch.tensor(float(alpha))
    state, network_alphas = Loader.lora_state_dict(file, unet_config=unet.config)[:2]
    Loader.load_lora_into_unet(state, network_alphas, unet, adapter_name="file")
    return sorted({unet.get_submodule(name).scaling["file"] for name in layers})


for said, alphas, ranks in (("alphas 4 and 1, ranks 4", (4, 1), (4, 4)), ("alphas 4 and 4, ranks 4 and 2", (4, 4), (4, 2))):
    stored = sorted({alpha / rank for alpha, rank in zip(alphas, ranks)})
    print(f"{said}: scales in the file {stored}, in diffusers {scales_when_loaded(alphas, ranks)}")
PY
cat found.txt
diff found.txt - <<'TXT'
alphas 4 and 1, ranks 4: scales in the file [0.25, 1.0], in diffusers [1.0]
alphas 4 and 4, ranks 4 and 2: scales in the file [1.0, 2.0], in diffusers [1.0, 2.0]
TXT
