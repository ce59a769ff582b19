"""Draws images with diffusers and PEFT alone, as a user without mnemon would: a process of its own, which reads jobs
as lines of JSON and answers each with a line, "done" or what went wrong."""

import json
import sys

import numpy
import safetensors.torch
import tokenizers
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline


def main(job):
    if job.get("checkpoint"):
        kind = StableDiffusionXLPipeline if job["family"] == "sdxl" else StableDiffusionPipeline
        pipeline = kind.from_single_file(job["checkpoint"], config=job["base"], local_files_only=True)
    else:
        pipeline = DiffusionPipeline.from_pretrained(job["base"])
    pipeline.set_progress_bar_config(disable=True)
    if job["family"] in ("sd", "sdxl"):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    exec(job.get("code", ""), {"pipeline": pipeline, **LIBRARIES})  # as the model card tells
    generator = torch.Generator().manual_seed(job["seed"])
    image = pipeline(prompt=job["prompt"], generator=generator, output_type="np", **job["how"]).images[0]
    numpy.save(job["out"], image)
    assert not any(name.split(".")[0] == "mnemon" for name in sys.modules)


LIBRARIES = {"safetensors": safetensors, "tokenizers": tokenizers}

if __name__ == "__main__":
    for line in sys.stdin:
        try:
            main(json.loads(line))
            answer = "done"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(answer, flush=True)
