#!/usr/bin/env bash
# transformers 5.23.0: with a padding mask, a Qwen3 text encoder cannot run on the meta device under its default attention.
#
# Shapes and memory are commonly worked out on the meta device, without weights. A Qwen3 model (the text encoder of
# FLUX.2 klein and Z-Image) does run there, but not with an attention mask that pads and the default `sdpa` attention:
# it raises "Tensor.item() cannot be called on meta tensors". The same call works on the CPU, without a mask, and on the
# meta device with `eager` attention. Prompts of one length never show it, since pipelines pad prompts. mnemon plans the
# memory of such bases with the attention that a GPU would take and without reading the mask's values.
#
# Expected output:
#   cpu, sdpa, padding mask: (1, 6, 16)
#   meta, sdpa, no mask: (1, 6, 16)
#   meta, sdpa, padding mask: RuntimeError
#   meta, eager, padding mask: (1, 6, 16)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
venv/bin/python - >found.txt <<'PY'
import torch
from transformers import Qwen3Config, Qwen3Model

config = Qwen3Config(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8,
)
cases = [("cpu", "sdpa", True), ("meta", "sdpa", False), ("meta", "sdpa", True), ("meta", "eager", True)]
for device, attention, masked in cases:
    with torch.device(device):
        model = Qwen3Model._from_config(config, attn_implementation=attention)
        tokens = torch.ones(1, 6, dtype=torch.long)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]]).to(device) if masked else None
    try:
        with torch.no_grad():
            outcome = str(tuple(model(tokens, attention_mask=mask).last_hidden_state.shape))
    except RuntimeError as error:
        assert "Tensor.item() cannot be called on meta tensors" in str(error), error
        outcome = "RuntimeError"
    print(f"{device}, {attention}, {'padding mask' if masked else 'no mask'}: {outcome}")
PY
cat found.txt
diff found.txt - <<'TXT'
cpu, sdpa, padding mask: (1, 6, 16)
meta, sdpa, no mask: (1, 6, 16)
meta, sdpa, padding mask: RuntimeError
meta, eager, padding mask: (1, 6, 16)
TXT
