"""LoRA files as other tools write them, for tiny bases, with the change of each weight by its definition.

Names and formulas are written down here a second time, by hand and in plain PyTorch: nothing of it is the importer's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mnemon.models import Base
from mnemon.models.layers import every_layer

Layers = dict[str, nn.Module]
Factors = tuple[Tensor, Tensor]
RANK, ALPHA = 2, 3.0
ENDINGS = {
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "peft": ("lora_A.weight", "lora_B.weight"),
    "named": ("lora_A.default.weight", "lora_B.default.weight"),
    "diffusers": ("lora.down.weight", "lora.up.weight"),
}


@dataclass
class Layout:
    """A file: its tensors and header, the change that it makes by target module, and its vectors by text encoder."""

    title: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Tensor] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, factors: Factors, spelling: str, alpha: bool) -> None:
        down, up = ENDINGS[spelling]
        self.tensors |= {f"{name}.{down}": factors[0], f"{name}.{up}": factors[1]}
        if alpha:
            self.tensors[f"{name}.alpha"] = torch.tensor(ALPHA)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape)


def factors_of(layer: nn.Module) -> Factors:
    if isinstance(layer, nn.Conv2d):
        return normal(RANK, layer.in_channels, *layer.kernel_size), normal(layer.out_channels, RANK, 1, 1)
    assert isinstance(layer, nn.Linear)
    return normal(RANK, layer.in_features), normal(layer.out_features, RANK)


def product(factors: Factors, alpha: bool) -> Tensor:
    down, up = factors
    return (ALPHA / RANK if alpha else 1.0) * (up.flatten(1) @ down.flatten(1))


def some_layers(base: Base) -> Layers:
    """Of every kind of layer one: those whose path is new when its numbers are left out."""
    kinds, chosen = set(), {}
    for target, layer in every_layer(base).items():
        kind = ".".join("n" if part.isdigit() else part for part in target.split("."))
        if kind not in kinds and "vision" not in target and "visual" not in target:
            kinds.add(kind)
            chosen[target] = layer
    return chosen


def split_target(base: Base, target: str) -> tuple[str, str]:
    part, _, path = target.partition(".")
    return (part, path) if part.startswith("text_encoder") else ("", target)


def written(
    title: str, base: Base, layers: Layers, name: Callable[[str, str], str], spelling: str, alpha: bool
) -> Layout:
    """A file whose layers are called `name(part, path)`; the part of the denoiser is ""."""
    layout = Layout(title)
    for target, layer in layers.items():
        factors = factors_of(layer)
        layout.add(name(*split_target(base, target)), factors, spelling, alpha)
        layout.changes[target] = product(factors, alpha)
    return layout


def denoiser(base: Base) -> str:
    return "unet" if base.family in ("sd", "sdxl") else "transformer"


def kohya_encoder(base: Base, part: str) -> str:
    """sd-scripts' prefix of a text encoder."""
    if base.family == "flux" and part == "text_encoder_2":
        return "lora_te3"
    number = part.removeprefix("text_encoder").removeprefix("_") or "1"
    return "lora_te" if number == "1" and base.family == "sd" else f"lora_te{number}"


def is_clip(base: Base, part: str) -> bool:
    return part in {"sd": ["text_encoder"], "flux": ["text_encoder"]}.get(
        base.family, ["text_encoder", "text_encoder_2"] if base.family in ("sdxl", "sd3") else []
    )


def with_text_model(base: Base, part: str, path: str) -> str:
    return f"text_model.{path}" if is_clip(base, part) and not path.startswith("text_projection") else path


def layouts(base: Base) -> Iterator[Layout]:
    """Files in every spelling that the family has."""
    torch.manual_seed(11)
    layers, own = some_layers(base), denoiser(base)

    def dotted(prefix: str) -> Callable[[str, str], str]:
        return lambda part, path: f"{part}.{path}" if part else f"{prefix}{path}"

    def kohya(part: str, path: str) -> str:
        prefix = kohya_encoder(base, part) if part else "lora_unet"
        return f"{prefix}_{with_text_model(base, part, path).replace('.', '_')}"

    def one_trainer(part: str, path: str) -> str:
        number = part.removeprefix("text_encoder").removeprefix("_") or "1"
        prefix = f"lora_te{number}" if part else f"lora_{own}"
        return f"{prefix}_{with_text_model(base, part, path).replace('.', '_')}"

    def comfy(part: str, path: str) -> str:
        names = {"sd": ["clip_l"], "flux": ["clip_l", "t5xxl"], "sdxl": ["clip_l", "clip_g"]}
        names["sd3"] = ["clip_l", "clip_g", "t5xxl"]
        number = int(part.removeprefix("text_encoder").removeprefix("_") or 1)
        encoder = names.get(base.family, ["qwen3_4b"])[number - 1] if part else ""
        path = with_text_model(base, part, path)
        return f"text_encoders.{encoder}.transformer.{path}" if part else f"diffusion_model.{path}"

    alone = {target: layer for target, layer in layers.items() if not split_target(base, target)[0]}
    yield written("diffusers", base, layers, dotted(f"{own}."), "peft", False)
    yield written("diffusers with alpha", base, layers, dotted(f"{own}."), "kohya", True)
    yield written("kohya", base, layers, kohya, "kohya", True)
    yield written("OneTrainer", base, layers, one_trainer, "kohya", True)
    yield written("ComfyUI", base, layers, comfy, "peft", True)
    yield written("PEFT's folder", base, alone, dotted("base_model.model."), "peft", False)
    yield written("PEFT's names", base, alone, dotted(f"{own}.base_model.model."), "named", False)
    yield written("bare", base, alone, dotted(""), "diffusers", True)
    yield written("LyCORIS's prefix", base, alone, lambda _, path: f"lycoris_{path.replace('.', '_')}", "kohya", True)
    yield lycoris(base, layers, kohya)
    yield with_embedding(written("with its embedding", base, layers, kohya, "kohya", True), base)


def with_embedding(layout: Layout, base: Base) -> Layout:
    """The vectors of a token beside the layers, as ai-toolkit writes them, or OneTrainer."""
    keys = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}
    if base.family == "flux":
        keys = {"clip_l": "text_encoder", "t5": "text_encoder_2"}
    widths = {encoder: width for encoder, (width, _, _) in base.embedding_statistics().items()}
    if len(widths) == 1:
        keys = {"emb_params": "text_encoder"}
    bundled = "bundle_emb.rex." if base.family in ("flux", "sd3") else ""
    for key, encoder in keys.items():
        if encoder in widths:
            layout.vectors[encoder] = layout.tensors[f"{bundled}{key}"] = normal(2, widths[encoder])
    return layout


def lycoris(base: Base, layers: Layers, name: Callable[[str, str], str]) -> Layout:
    """Every algorithm that is a sum to the weight, one after another."""
    layout = Layout("LyCORIS")
    algorithms = (loha, lokr_whole, lokr_second, lokr_factors, full)
    for number, (target, layer) in enumerate(layers.items()):
        algorithm = algorithms[number % len(algorithms)]
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            algorithm = (locon_mid, loha_cp, lokr_cp)[number % 3]
        tensors, change = algorithm(layer)
        layout.tensors |= {f"{name(*split_target(base, target))}.{kind}": value for kind, value in tensors.items()}
        layout.changes[target] = change
    return layout


Algorithm = tuple[dict[str, Tensor], Tensor]


def sizes(layer: nn.Module) -> tuple[int, int]:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    matrix = layer.weight.flatten(1)
    return matrix.shape[0], matrix.shape[1]


def loha(layer: nn.Module) -> Algorithm:
    rows, columns = sizes(layer)
    parts = {f"hada_w{n}_a": normal(rows, RANK) for n in (1, 2)} | {
        f"hada_w{n}_b": normal(RANK, columns) for n in (1, 2)
    }
    first, second = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in (1, 2))
    return parts | {"alpha": torch.tensor(ALPHA)}, ALPHA / RANK * first * second


def divided(size: int) -> tuple[int, int]:
    """A size as a product, the first factor at most 4."""
    factor = next(one for one in (4, 3, 2, 1) if size % one == 0)
    return factor, size // factor


def lokr_whole(layer: nn.Module) -> Algorithm:
    (a, c), (b, d) = (divided(size) for size in sizes(layer))
    w1, w2 = normal(a, b), normal(c, d)
    return {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(ALPHA)}, torch.kron(w1, w2)


def lokr_second(layer: nn.Module) -> Algorithm:
    (a, c), (b, d) = (divided(size) for size in sizes(layer))
    w1, left, right = normal(a, b), normal(c, RANK), normal(RANK, d)
    tensors = {"lokr_w1": w1, "lokr_w2_a": left, "lokr_w2_b": right, "alpha": torch.tensor(ALPHA)}
    return tensors, ALPHA / RANK * torch.kron(w1, left @ right)


def lokr_factors(layer: nn.Module) -> Algorithm:
    (a, c), (b, d) = (divided(size) for size in sizes(layer))
    tensors = {
        "lokr_w1_a": normal(a, RANK),
        "lokr_w1_b": normal(RANK, b),
        "lokr_w2_a": normal(c, RANK),
        "lokr_w2_b": normal(RANK, d),
    }
    change = torch.kron(tensors["lokr_w1_a"] @ tensors["lokr_w1_b"], tensors["lokr_w2_a"] @ tensors["lokr_w2_b"])
    return tensors | {"alpha": torch.tensor(ALPHA)}, ALPHA / RANK * change


def full(layer: nn.Module) -> Algorithm:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    change = normal(*layer.weight.shape)
    return {"diff": change}, change.flatten(1)


def locon_mid(layer: nn.Module) -> Algorithm:
    """Three convolutions one after another are one: each kernel's position by itself."""
    assert isinstance(layer, nn.Conv2d)
    height, width = layer.kernel_size
    down, mid = normal(RANK, layer.in_channels, 1, 1), normal(RANK, RANK, height, width)
    up = normal(layer.out_channels, RANK, 1, 1)
    change = torch.empty(layer.out_channels, layer.in_channels, height, width)
    for y in range(height):
        for x in range(width):
            change[:, :, y, x] = up[:, :, 0, 0] @ mid[:, :, y, x] @ down[:, :, 0, 0]
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}
    return tensors, ALPHA / RANK * change.flatten(1)


def cp(kernel: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """kernel (rank, rank, height, width), out (rank, d_out), into (rank, d_in): the convolution's weight."""
    weight = torch.empty(out.shape[1], into.shape[1], *kernel.shape[2:])
    for y in range(kernel.shape[2]):
        for x in range(kernel.shape[3]):
            weight[:, :, y, x] = out.T @ kernel[:, :, y, x] @ into
    return weight


def loha_cp(layer: nn.Module) -> Algorithm:
    assert isinstance(layer, nn.Conv2d)
    tensors, weights = {}, []
    for n in (1, 2):
        kernel = normal(RANK, RANK, *layer.kernel_size)
        out, into = normal(RANK, layer.out_channels), normal(RANK, layer.in_channels)
        tensors |= {f"hada_t{n}": kernel, f"hada_w{n}_a": out, f"hada_w{n}_b": into}
        weights.append(cp(kernel, out, into))
    return tensors | {"alpha": torch.tensor(ALPHA)}, ALPHA / RANK * (weights[0] * weights[1]).flatten(1)


def lokr_cp(layer: nn.Module) -> Algorithm:
    assert isinstance(layer, nn.Conv2d)
    (a, c), (b, d) = divided(layer.out_channels), divided(layer.in_channels)
    w1, kernel = normal(a, b), normal(RANK, RANK, *layer.kernel_size)
    out, into = normal(RANK, c), normal(RANK, d)
    weight = cp(kernel, out, into)
    change = torch.stack(
        [torch.kron(w1, weight[:, :, y, x]) for y in range(weight.shape[2]) for x in range(weight.shape[3])], dim=-1
    )
    tensors = {"lokr_w1": w1, "lokr_t2": kernel, "lokr_w2_a": out, "lokr_w2_b": into, "alpha": torch.tensor(ALPHA)}
    return tensors, ALPHA / RANK * change.flatten(1)
