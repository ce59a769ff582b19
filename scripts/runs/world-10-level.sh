#!/bin/sh
# docs/results.md: ten concepts, every method under the protocol level, three orders, seed 0, each concept also alone.
# Started again, it goes on.
# Usage: scripts/runs/world-10-level.sh [results folder] [further options of mnemon bench]
set -eu
out=${1:-runs/world-10-level}
[ $# -eq 0 ] || shift
exec mnemon bench --sequence world-10 --protocol level --methods all --orders 3 --out "$out" "$@"
