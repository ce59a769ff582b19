#!/usr/bin/env bash
# diffusers 0.42.1: convert_state_dict_to_kohya writes the rank as every alpha, whatever the adapter's alpha was.
#
# A LoRA acts with the scale alpha / rank. The converter sees only tensors, and writes `.alpha` = rank beside each layer,
# without a word: an adapter of rank 4 and alpha 8 arrives in kohya's form at half its strength. mnemon's own writer puts
# the adapter's alpha there.
#
# Expected output:
#   scale in the adapter: 2.0
#   alphas in the kohya file: [4]
#   scale of the kohya file: 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2
cd "$folder"
venv/bin/python - >found.txt <<'PY'
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model_state_dict

unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
    attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
unet.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=["to_k", "to_v"]))
layer = next(module for module in unet.modules() if hasattr(module, "scaling"))
kohya = convert_state_dict_to_kohya(get_peft_model_state_dict(unet))
alphas = sorted({int(value) for name, value in kohya.items() if name.endswith(".alpha")})
rank = next(value.shape[0] for name, value in kohya.items() if name.endswith("lora_down.weight"))
print("scale in the adapter:", layer.scaling["default"])
print("alphas in the kohya file:", alphas)
print("scale of the kohya file:", alphas[0] / rank)
PY
cat found.txt
diff found.txt - <<'TXT'
scale in the adapter: 2.0
alphas in the kohya file: [4]
scale of the kohya file: 1.0
TXT
