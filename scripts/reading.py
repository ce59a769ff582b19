"""Reading a folder of large photos: wall time against processor time, and the peak of the memory.

    python -m scripts.reading --photos 200 --megapixels 12 --side 512

makes JPEGs of noise over smooth colours in a temporary folder, then reads them in a process of its own as `learn` does:
every file is checked, then decoded to squares one after another. The peak is of that process, with numpy and torch.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image


def make_photos(folder: Path, count: int, megapixels: float) -> int:
    """`count` different JPEGs of 4:3; returns their bytes."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = height * 4 // 3
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, width)[None, :, None] * np.linspace(1, 0.3, height)[:, None, None]
    grain = rng.normal(0, 6, (height, width, 1))
    for number in range(count):
        colour = rng.uniform(60, 250, 3)
        pixels = (ramp * colour + np.roll(grain, number * 97, axis=1)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=92)
    return sum(file.stat().st_size for file in folder.iterdir())


def read(folder: str, side: int, answer: Connection) -> None:
    from mnemon.data import concept_from_folder, photo_squares

    before = _peak()
    seconds: dict[str, tuple[float, float]] = {}
    began = time.monotonic(), time.process_time()
    concept = concept_from_folder(folder, "it")
    seconds["check"] = time.monotonic() - began[0], time.process_time() - began[1]
    began = time.monotonic(), time.process_time()
    for _ in photo_squares(concept, side):
        pass
    seconds["decode"] = time.monotonic() - began[0], time.process_time() - began[1]
    answer.send({"start_mb": before, "peak_mb": _peak(), "seconds": seconds})


def _peak() -> float:
    """Of the resident memory of this process since it began, in MB (getrusage would know the parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--side", type=int, default=512)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stored = make_photos(Path(folder), asked.photos, asked.megapixels)
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=read, args=(folder, asked.side, there))
        process.start()
        measured = here.recv()
        process.join()
    print(json.dumps({**vars(asked), "stored_mb": stored / 1e6, **measured}, indent=1))
    for part, (wall, cpu) in measured["seconds"].items():
        print(f"{part}: {wall:.1f} s, {cpu:.1f} s of the processors: {cpu / wall:.2f} cores")


if __name__ == "__main__":
    main()
