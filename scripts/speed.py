"""Speed and size of mnemon against peers in the same run.

    python -m scripts.speed --out results/speed.json
    python -m scripts.speed --only steps drawing --quick

Everything is a ratio to a peer that runs in turn with it in the same process, or says the machine it was measured on.
Leave the machine alone meanwhile.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mnemon.evaluation import Encoders, encoders_for
from mnemon.files import write_json
from mnemon.methods import METHODS, method_from, method_settings
from mnemon.models import Base, load_base
from mnemon.world import base_folder
from scripts.common import QUICK, Bench, Result, Sizes, machine, print_results, to_json
from scripts.concepts import learning, stored
from scripts.costs import costs
from scripts.images import drawing, drawing_by_prompt, scoring
from scripts.steps import steps
from scripts.together import together

PARTS: dict[str, tuple[str, Callable[[Bench, Encoders], list[Result]]]] = {
    "steps": ("A training step", lambda bench, _: steps(bench)),
    "together": ("Concepts learned together", lambda bench, _: together(bench)),
    "drawing": ("Drawing", lambda bench, _: [*drawing(bench), *drawing_by_prompt(bench)]),
    "bytes": ("Stored", lambda bench, _: stored(bench)),
    "learning": ("Learning", learning),
    "costs": ("A sixth concept", lambda bench, _: costs(bench)),
    "scoring": ("Scoring", scoring),
}


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    base, bare = (load_base(options.base, device=options.device) for _ in range(2))
    bench = Bench(base, bare, {name: method_from(name) for name in options.methods}, options.sizes, options.seed)
    record: dict[str, Any] = {
        "machine": machine(bench.base),
        "base": {"name": bench.base.name, "fingerprint": bench.base.fingerprint},
        "methods": {name: method_settings(method) for name, method in bench.methods.items()},
        "sizes": bench.sizes.to_json(),
        "seed": bench.seed,
        "quick": bench.sizes is QUICK,
        "results": {},
    }
    for part in options.only:
        title, measure = PARTS[part]
        results = measure(bench, _encoders(bench.base))
        if not results:  # for example concepts together, of methods whose concepts wait for one another
            print(f"{title}: nothing to measure of {', '.join(bench.methods)}")
            continue
        print_results(title, results)
        record["results"][part] = to_json(results)
        if options.out is not None:
            write_json(options.out, record)  # after every part: a later one may fail


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default="world", help="'world', a diffusers folder or a hub id")
    parser.add_argument("--methods", nargs="+", default=["lora", "stamina"], choices=list(METHODS))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS), help="parts to run; all")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", dest="sizes", action="store_const", const=QUICK, default=Sizes(),
        help="only to see that it runs: few repetitions, whose numbers mean nothing",
    )  # fmt: skip
    return parser.parse_args()


def _encoders(base: Base) -> Encoders:
    folder = base_folder() if base.name == "world" else Path(base.name)
    return encoders_for(folder if folder.is_dir() else None, base.device)


if __name__ == "__main__":
    main()
