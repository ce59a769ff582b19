#!/bin/sh
# docs/results.md, "Ten concepts": every method, three orders, seed 0, 100 steps. Started again, it goes on.
# Usage: scripts/runs/world-10.sh [results folder] [further options of mnemon bench]
set -eu
out=${1:-runs/world-10}
[ $# -eq 0 ] || shift
methods="single joint stamina cns fl2t cidm lora c-lora ewc lwf replay custom-diffusion custom-diffusion-merge
lora-merge lora-compose mix-of-show orthogonal-adaptation textual-inversion"
steps=$(for method in $methods; do printf ' --set %s.steps=100' "$method"; done)
# shellcheck disable=SC2086
exec mnemon bench --sequence world-10 --methods all --orders 3 $steps --out "$out" "$@"
