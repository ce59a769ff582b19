#!/bin/sh
# docs/results.md, "Fifty concepts": one order, seed 0; 80 steps for stamina, which also has a folder of its own with
# 100, and 100 for the others. Started again, it goes on.
# Usage: scripts/runs/world-50.sh [results folder] [further options of mnemon bench]
set -eu
out=${1:-runs/world-50}
[ $# -eq 0 ] || shift
others="single joint fl2t c-lora cns lora cidm"
steps=$(for method in $others; do printf ' --set %s.steps=100' "$method"; done)
methods=stamina,$(echo "$others" | tr ' ' ,)
# shellcheck disable=SC2086
mnemon bench --sequence world-50 --methods "$methods" --set stamina.steps=80 $steps --out "$out" "$@"
mnemon bench --sequence world-50 --methods stamina --set stamina.steps=100 --out "$out-stamina-100-steps" "$@"
