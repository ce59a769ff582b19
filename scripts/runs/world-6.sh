#!/bin/sh
# docs/results.md, "Six concepts, every method": one order, seed 0, 100 steps. Started again, it goes on.
# Usage: scripts/runs/world-6.sh [results folder] [further options of mnemon bench]
set -eu
out=${1:-runs/world-6}
[ $# -eq 0 ] || shift
methods="single joint stamina cns fl2t cidm lora c-lora ewc custom-diffusion custom-diffusion-merge lora-merge
lora-compose mix-of-show orthogonal-adaptation textual-inversion lwf replay"
steps=$(for method in $methods; do printf ' --set %s.steps=100' "$method"; done)
# shellcheck disable=SC2086
exec mnemon bench --sequence world-6 --methods all --eval-at 6 $steps --out "$out" "$@"
