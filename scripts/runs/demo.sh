#!/bin/sh
# docs/results.md, "Five concepts: the demo". Started again, it goes on.
# Usage: scripts/runs/demo.sh [folder]
set -eu
exec mnemon demo --out "${1:-runs/demo}"
