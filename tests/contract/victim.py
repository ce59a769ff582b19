"""Learns a concept and says after each step how far it is, to be killed by a test: victim.py METHOD FOLDER STEPS."""

import sys
from pathlib import Path

from tests.contract.table import learn, small
from tests.tiny import tiny_sd_base

if __name__ == "__main__":
    name, folder, steps = sys.argv[1:]
    settings = {"steps": int(steps), "checkpoint_seconds": 0}
    learn(
        tiny_sd_base(),
        small(name),
        "rex",
        folder=Path(folder),
        on_step=lambda step, total, logs: print(step, flush=True),
        **settings,
    )
