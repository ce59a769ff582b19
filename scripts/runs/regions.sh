#!/bin/sh
# docs/results.md, "Several concepts in one image": 64 layouts of two, three and four concepts. Started again, it goes on.
# Usage, from the checkout: scripts/runs/regions.sh [results folder]
set -eu
exec python -m scripts.regions --methods stamina cns mix-of-show lora-compose --layouts 64 --training-steps 100 \
    --sampling-steps 20 --rounds 5 --seed 0 --out "${1:-runs/regions}"
