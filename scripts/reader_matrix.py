"""Who reads our LoRA files: every family and format, given to other tools' own code in processes without mnemon.

    python -m scripts.reader_matrix --comfyui CHECKOUT --sd-scripts CHECKOUT [--packages FOLDER] [FAMILY ...]

CHECKOUT is a folder with the tool's repository, FOLDER one with packages for both: einops, torchsde, scipy, trampoline,
sentencepiece and toml. For sd-scripts `--sd-packages` names a folder with its own versions of transformers, diffusers,
huggingface-hub, tokenizers and accelerate. A tool that is not given keeps its results. Each verdict is written to
`results/readers.json` as it comes; those that are there are not repeated, except with `--again`. The table in
docs/export.md is made from that file alone, by `python -m scripts.docs_tables`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemon.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "readers.json"
FAMILIES = {
    "sd": "SD 1.x",
    "sdxl": "SDXL",
    "sd3": "SD 3",
    "flux": "FLUX.1",
    "flux2": "FLUX.2",
    "flux2-klein": "FLUX.2 klein",
    "qwen-image": "Qwen-Image",
    "z-image": "Z-Image",
}
READERS = {"diffusers": "diffusers", "peft": "PEFT", "comfyui": "ComfyUI", "sd_scripts": "sd-scripts"}
HEAD = ("`--as`", "family", *READERS.values())
MERGED_BY_SD_SCRIPTS = ("sd", "sdxl", "flux")
Key = tuple[str, str, str, str]
Verdict = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--comfyui", type=Path, metavar="CHECKOUT")
    parser.add_argument("--sd-scripts", type=Path, metavar="CHECKOUT")
    parser.add_argument("--packages", type=Path, metavar="FOLDER")
    parser.add_argument("--sd-packages", type=Path, metavar="FOLDER")
    parser.add_argument("--again", action="store_true", help="repeat what is there")
    given = parser.parse_args()
    for family in given.families:
        with tempfile.TemporaryDirectory() as folder:
            record(family, Path(folder), given)


def record(family: str, folder: Path, given: argparse.Namespace) -> None:
    """Write the family's files, give them to each reader, and store what comes back."""
    checkouts = {"diffusers": [], "peft": [], "comfyui": [given.comfyui], "sd_scripts": [given.sd_scripts]}
    packages = {"comfyui": [given.packages], "sd_scripts": [given.sd_packages, given.packages]}
    subprocess.run([sys.executable, "-m", "tests.export.readers.written", str(folder), family], check=True, cwd=ROOT)
    for reader, arguments in checkouts.items():
        if None in arguments or (reader == "sd_scripts" and family not in MERGED_BY_SD_SCRIPTS):
            continue
        known = {} if given.again else results()
        jobs = {key: job for key, job in jobs_of(reader, family, folder).items() if key not in known}
        for key, verdict in zip(jobs, answers(reader, arguments, packages.get(reader, []), jobs.values()), strict=True):
            print(*key, verdict, flush=True)
            keep({**results(), key: verdict})


def jobs_of(reader: str, family: str, folder: Path) -> dict[Key, dict[str, str]]:
    jobs = {}
    for merged in sorted(folder.glob("*/merged.safetensors"), key=lambda path: path.stat().st_mtime_ns):
        for kind in sorted(path for path in merged.parent.iterdir() if path.is_dir()):
            if reader == "peft" and kind.name != "diffusers":
                continue  # PEFT reads its own names and config only
            (file,) = kind.glob("*.safetensors")
            job = {"family": family, "base": folder / "base", "file": file, "merged": merged}
            jobs[family, kind.name, merged.parent.name, reader] = {name: str(value) for name, value in job.items()}
    return jobs


def answers(
    reader: str, arguments: Sequence[Path], packages: Sequence[Path | None], jobs: Any
) -> Iterator[dict[str, Any]]:
    """The verdicts of a reader's process, which has its packages before those of this one and nothing of mnemon."""
    paths = [*(str(path) for path in packages if path), str(ROOT)]
    command = [sys.executable, "-m", f"tests.export.readers.with_{reader}", *(str(path) for path in arguments)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin and process.stdout
        for job in jobs:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            lines = iter(process.stdout.readline, "")
            yield next(json.loads(line) for line in lines if line.startswith('{"verdict"'))
        process.stdin.close()


def results() -> dict[Key, Verdict]:
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    return {(row["family"], row["format"], row["content"], row["reader"]): row for row in rows}


def keep(verdicts: Mapping[Key, Verdict]) -> None:
    names = ("family", "format", "content", "reader")
    order = list(FAMILIES)
    keys = sorted(verdicts, key=lambda key: (order.index(key[0]), *key[1:2], list(READERS).index(key[3])))
    write_json(RESULTS, [dict(zip(names, key, strict=True)) | dict(verdicts[key]) for key in keys])


def rows() -> list[list[str]]:
    """A row for each format and family: the verdict of every reader."""
    known = results()
    pairs = dict.fromkeys((family, kind) for family, kind, _, _ in known)
    made = []
    for family, kind in sorted(pairs, key=lambda pair: (pair[1], list(FAMILIES).index(pair[0]))):
        found = [
            {
                content: row
                for (one, form, content, who), row in known.items()
                if (one, form, who) == (family, kind, reader)
            }
            for reader in READERS
        ]
        made.append([f"`{kind}`", FAMILIES[family], *(cell(verdicts) for verdicts in found)])
    return made


def cell(verdicts: Mapping[str, Verdict]) -> str:
    """ "right", or which contents are not, and how."""
    if not verdicts:
        return "not run"
    others = {content: row for content, row in verdicts.items() if row["verdict"] != "right"}
    if not others:
        return "right"
    groups: dict[str, list[str]] = {}
    for content, row in others.items():
        groups.setdefault(_words(row), []).append(content)
    if len(others) == len(verdicts) and len(groups) == 1:
        return next(iter(groups))
    start = "" if len(others) == len(verdicts) else "right; "
    return start + "; ".join(f"{', '.join(contents)}: {words}" for words, contents in groups.items())


def _words(row: Verdict) -> str:
    if row["verdict"] != "left":
        return f"**{row['verdict']}**" if row["verdict"] == "wrong" else str(row["verdict"])
    said = "said" if row["said"] else "**unsaid**"
    number = "all" if row["left"] == row["weights"] else f"{row['left']} of {row['weights']}"
    return f"leaves {number}, {said}"


if __name__ == "__main__":
    main()
