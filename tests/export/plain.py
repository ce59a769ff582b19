"""Draws pictures with diffusers and PEFT alone, as a user without mnemon would: a process of its own, which reads jobs
as lines of JSON and answers each with a line, "done" or what went wrong."""

import json
import sys

import numpy
import safetensors.torch
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline


def main(job):
    kind = StableDiffusionXLPipeline if job["xl"] else StableDiffusionPipeline
    if job.get("checkpoint"):
        pipeline = kind.from_single_file(job["checkpoint"], config=job["base"], local_files_only=True)
    else:
        pipeline = kind.from_pretrained(job["base"])
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    exec(job.get("code", ""), {"pipeline": pipeline, "safetensors": safetensors})  # as the model card tells
    shape = (1, pipeline.unet.config.in_channels, 8, 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(job["seed"]))
    picture = pipeline(
        job["prompt"],
        latents=latents,
        num_inference_steps=job["steps"],
        guidance_scale=job["guidance"],
        output_type="np",
    )
    numpy.save(job["out"], picture.images[0])
    assert not any(name.split(".")[0] == "mnemon" for name in sys.modules)


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            main(json.loads(line))
            answer = "done"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(answer, flush=True)
