#!/bin/sh
# docs/results.md, "Speed and size", and the costs of the sixth concept: a JSON file for each record; those that are
# there are not measured again. Leave the machine alone meanwhile.
# Usage, from the checkout: scripts/runs/speed.sh [results folder]
set -eu
out=${1:-runs}
mkdir -p "$out"

# measure NAME ARGUMENTS...: one record, moved into place when it is whole
measure() {
    record=$out/speed-$1.json
    shift
    [ -e "$record" ] && return
    python -m scripts.speed "$@" --threads 2 --seed 0 --out "$record.part"
    mv "$record.part" "$record"
}

measure steps --only steps --methods lora stamina
measure together --only together --methods fl2t
measure drawing --only drawing bytes --methods lora stamina
measure drawing-by-prompt --only drawing --methods cidm fl2t
measure learning --only learning --methods lora stamina
measure scoring --only scoring
measure costs --only costs --methods lora stamina c-lora textual-inversion custom-diffusion cns \
    custom-diffusion-merge lora-merge lora-compose ewc lwf replay single joint mix-of-show orthogonal-adaptation cidm \
    fl2t
