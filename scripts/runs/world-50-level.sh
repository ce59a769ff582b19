#!/bin/sh
# docs/results.md: fifty concepts under the protocol level, one order, seed 0, each concept also alone. Started again, it
# goes on.
# Usage: scripts/runs/world-50-level.sh [results folder] [further options of mnemon bench]
set -eu
out=${1:-runs/world-50-level}
[ $# -eq 0 ] || shift
methods=single,joint,null-space,stamina,fl2t,c-lora,cns,lora,cidm
exec mnemon bench --sequence world-50 --protocol level --methods "$methods" --out "$out" "$@"
