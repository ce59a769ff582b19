"""Files made by the code of other tools, imported: mnemon draws with the concept what diffusers draws with the file.

    python -m tests.export.foreign SD_SCRIPTS LORA

SD_SCRIPTS is a checkout of kohya-ss/sd-scripts, LORA one of cloneofsimo/lora; einops has to be importable. Neither is
in this repository, nor are their files. Each tool's own code puts its layers into a tiny pipeline and saves them; they
are filled with random numbers, for trained ones. diffusers then draws with the file. cloneofsimo's it cannot read: its
pipeline then draws with what the tool's own loader put into it.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FluxPipeline, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from mnemon.api import import_concept
from mnemon.library import Library
from mnemon.models import load_base
from tests.export.conftest import SEED, bare, drawn, how_of
from tests.export.stand_ins import stand_in
from tests.tiny import tiny_sd, tiny_sdxl
from tests.tiny_transformers import SIDE, tiny_flux

STOOD_IN = ("torchvision", "cv2", "imagesize", "toml", "voluptuous", "fire", "mediapipe")
OF_PICTURES = ("library.lpw_stable_diffusion", "library.sdxl_lpw_stable_diffusion")
"""sd-scripts' pipelines for sample images, which need an older version of transformers."""
WORDS, PROMPT = "a photo of red dots in snow", "a photo of <rex> in snow"
WITHIN = 1e-3
Load = Callable[[Any], None]


def main(scripts: Path, cloneofsimo: Path) -> None:
    sys.path[:0] = [str(scripts), str(cloneofsimo)]
    stand_in(*STOOD_IN, *OF_PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for family, made in {"sd": tiny_sd, "sdxl": tiny_sdxl, "flux": tiny_flux}.items():
            made().save_pretrained(root / family)
        for family, title, file, words, load in files(root):
            compare(root, family, title, file, words, load)


def files(root: Path) -> Iterator[tuple[str, str, Path, bool, Load]]:
    """Family, title, file, whether ordinary words call it, and how a diffusers pipeline gets it."""
    for family in ("sd", "sdxl"):
        file = kohya(root / family, root / f"kohya-{family}.safetensors")
        yield family, "sd-scripts networks.lora", file, True, lora(file)
    file = kohya_flux(root / "kohya-flux.safetensors")
    yield "flux", "sd-scripts networks.lora_flux", file, True, lora(file)
    file = kohya_embedding(root / "kohya-embedding.safetensors")
    yield "sd", "sd-scripts train_textual_inversion", file, False, embedding(file)
    file = diffusers_lora(root / "sd", root / "saved")
    yield "sd", "diffusers save_lora_weights", file, True, lora(file)
    folder, load = peft_folder(root / "sd", root / "peft")
    yield "sd", "PEFT save_pretrained", folder, True, load
    file, load = cloneofsimo(root / "sd", root / "cloneofsimo.safetensors")
    yield "sd", "cloneofsimo/lora save_safeloras_with_embeds", file, False, load


def compare(root: Path, family: str, title: str, file: Path, words: bool, load: Load) -> None:
    base = load_base(str(root / family))
    pipeline = opened(root / family)
    if family == "flux":
        base.resolution = SIDE
    load(pipeline)
    generator = torch.Generator().manual_seed(SEED)
    prompt = WORDS if words else PROMPT
    answer = pipeline(prompt=prompt, generator=generator, output_type="np", **how_of(base)).images[0]
    original = torch.from_numpy(answer).permute(2, 0, 1)
    library = root / f"library of {title} {family}"
    trigger = "red dots" if words else None
    found = import_concept(library, [file], "rex", trigger=trigger, base=base, method="lora", scored=False)
    image = drawn(Library.open(library), base, PROMPT)
    off, changed = (image - original).abs().max().item(), (original - bare(base, WORDS)).abs().max().item()
    assert off <= WITHIN < 10 * WITHIN < changed, (title, off, changed)
    print(
        f"{family}, {title}: {found.layers} layers, {found.vectors} vectors; images differ by {off:.1e} at most, "
        f"from the base's by {changed:.2f}"
    )


def opened(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if not isinstance(pipeline, FluxPipeline):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    return pipeline


def lora(file: Path) -> Load:
    return lambda pipeline: pipeline.load_lora_weights(str(file))


def embedding(file: Path) -> Load:
    return lambda pipeline: pipeline.load_textual_inversion(str(file), token="<rex>")


def filled(module: nn.Module, scale: float, only: str = "") -> None:
    """Seeded values in its parameters, for trained ones."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in module.named_parameters():
        if only in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)


def kohya(folder: Path, file: Path) -> Path:
    """Convolutions too."""
    pipeline = opened(folder)
    encoders = [pipeline.text_encoder]
    if hasattr(pipeline, "text_encoder_2"):
        encoders.append(pipeline.text_encoder_2)
    network = import_module("networks.lora").create_network(
        1.0, 3, 2.0, None, encoders if len(encoders) > 1 else encoders[0], pipeline.unet, conv_dim=2, conv_alpha=1.0
    )
    network.apply_to(encoders if len(encoders) > 1 else encoders[0], pipeline.unet)
    filled(network, 0.15)
    network.save_weights(str(file), torch.float32, {"ss_network_module": "networks.lora"})
    return file


def kohya_flux(file: Path) -> Path:
    """The original FLUX model in the tiny one's size, whose queries, keys and values are one layer; the double-stream
    blocks, for diffusers reads the others in the published size only."""
    models = import_module("library.flux_models")
    flux = models.Flux(models.FluxParams(16, 16, 32, 32, 4.0, 2, 1, 1, [4, 6, 6], 10000, True, True))
    network = import_module("networks.lora_flux").create_network(1.0, 3, 2.0, None, [], flux, train_blocks="double")
    network.apply_to([], flux, apply_text_encoder=False)
    filled(network, 0.2)
    network.save_weights(str(file), torch.float32, {})
    return file


def kohya_embedding(file: Path) -> Path:
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    trainer = import_module("train_textual_inversion").TextualInversionTrainer()
    trainer.save_weights(str(file), [vectors], torch.float32, {})
    return file


def diffusers_lora(folder: Path, to: Path) -> Path:
    pipeline = opened(folder)
    parts = {"unet": ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2"], "text_encoder": ["q_proj", "fc1"]}
    layers: dict[str, Any] = {}
    for part, targets in parts.items():
        model = getattr(pipeline, part)
        model.add_adapter(LoraConfig(r=3, lora_alpha=5, target_modules=targets))
        filled(model, 0.15, "lora_")
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
        layers[f"{part}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(to, **layers)
    return to / "pytorch_lora_weights.safetensors"


def peft_folder(folder: Path, to: Path) -> tuple[Path, Load]:
    """PEFT's own folder, read back by PEFT's own function."""
    from peft import PeftModel

    config = LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["to_q", "to_k", "to_v", "proj_in"])
    model = get_peft_model(opened(folder).unet, config)
    filled(model, 0.15, "lora_")
    model.save_pretrained(to)

    def load(pipeline: Any) -> None:
        pipeline.unet = PeftModel.from_pretrained(pipeline.unet, to).merge_and_unload()

    return to, load


def cloneofsimo(folder: Path, file: Path) -> tuple[Path, Load]:
    """Its default layers of the U-Net and the text encoder, and a token."""
    code = import_module("lora_diffusion.lora")
    pipeline = opened(folder)
    parts = {
        "unet": (pipeline.unet, code.DEFAULT_TARGET_REPLACE | {"Attention"}),
        "text_encoder": (pipeline.text_encoder, code.TEXT_ENCODER_DEFAULT_TARGET_REPLACE),
    }
    for model, classes in parts.values():
        code.inject_trainable_lora(model, classes, r=2)
        filled(model, 0.3, "lora_")
    vector: Tensor = torch.randn(32, generator=torch.Generator().manual_seed(1))
    code.save_safeloras_with_embeds(parts, {"<rex>": vector}, str(file))

    def load(pipeline: Any) -> None:
        code.patch_pipe(pipeline, str(file), patch_text=True, patch_ti=True, patch_unet=True)
        for part in parts:
            getattr(pipeline, part).eval()  # the layers it puts in are new, with dropout at work

    return file, load


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
