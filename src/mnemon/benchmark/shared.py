"""What depends on the base alone, made once for all jobs of a results folder."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import safe_open
from torch import Tensor

from mnemon.evaluation import Encoders, EvalSettings, evaluate
from mnemon.methods import method_from
from mnemon.methods.base import Method
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.tensor_files import write_safetensors
from mnemon.training import Examples
from mnemon.training.generated import calibration_images


def control_scores(out: Path, base: Base, encoders: Encoders, settings: EvalSettings) -> tuple[dict[str, Any], Tensor]:
    """Scores and image features of the control prompts on the bare base, sampled once for all jobs."""
    how = f"{settings.num_inference_steps}-{settings.guidance_scale}-{settings.first_seed}"
    if uncommon := {key: value for key, value in settings.uncommon.items() if key != "templates"}:
        how += "-" + sha256(json.dumps(uncommon, sort_keys=True).encode()).hexdigest()[:12]
    path = out / "shared" / f"general-{base.fingerprint[:12]}-{how}.safetensors"
    if not path.exists():
        with Composed(base, method_from("lora"), []) as bare:
            row = evaluate(bare, {}, encoders, settings)
        _share(path, row.features[None], {"scores": json.dumps(row.control)})
    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["scores"]), file.get_tensor("image")


def calibration_set(out: Path, base: Base, method: Method) -> Examples | None:
    """The calibration set of `mnemon.training.generated`, which depends on the base alone, made once for all jobs."""
    if not method.needs_calibration:
        return None
    path = out / "shared" / f"calibration-{base.fingerprint[:12]}.safetensors"
    if not path.exists():
        images = calibration_images(base, method)
        assert images is not None
        _share(path, {"latents": images.latents}, {"prompts": json.dumps(list(images.prompts))})
    with safe_open(str(path), framework="pt") as file:
        return Examples(file.get_tensor("latents"), json.loads(file.metadata()["prompts"]))


def _share(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write a file that several jobs may be writing at once: they write the same."""
    own = path.with_name(f"{path.stem}-{uuid4().hex}.safetensors")
    write_safetensors(own, tensors, facts)
    own.replace(path)
