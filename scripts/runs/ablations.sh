#!/bin/sh
# docs/lab-log.md, "Ablations of stamina": five development concepts, 200 steps, with the settings of that time (one
# embedding per token with a random start, learning rate 2e-3). Rows that the file holds are not run again. The row with
# HAT's sparsity term is of an earlier version.
# Usage, from the checkout: scripts/runs/ablations.sh [JSON file]
set -eu
earlier="num_vectors=1 use_class_noun=false learning_rate=2e-3"
exec python -m scripts.sweep --concepts mug:301 cat:302 boat:303 robot:304 mug:305 --out "${1:-runs/ablations.json}" \
    "stamina $earlier" \
    "stamina $earlier sparsity_weight=0 forget_weight=50" \
    "stamina $earlier mask=none forget_weight=50" \
    "stamina $earlier mask=none forget=none" \
    lora
