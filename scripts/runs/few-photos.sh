#!/bin/sh
# docs/results.md, "Few photos": three mugs and three cats of world-50 from 1, 2, 3 and 5 photos each, 60 steps of 4
# images; each alone, and together with the others' factors shared. Started again, it goes on.
# Usage, from the checkout: scripts/runs/few-photos.sh [results folder]
set -eu
exec python -m scripts.few_photos "fl2t steps=60 batch_size=4 transfer=shared" \
    --concepts mug:1104 mug:1109 mug:1114 cat:1101 cat:1106 cat:1111 --photos 1 2 3 5 --seed 0 \
    --out "${1:-runs/few-photos}"
