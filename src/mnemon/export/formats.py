"""The keys of LoRA files in every common format: a layer's name and the kind of the tensor.

kohya              <name>.lora_down.weight, .lora_up.weight, .alpha, .lora_mid.weight, .dora_scale
PEFT               <name>.lora_A.weight, .lora_A.<adapter>.weight, .lora_magnitude_vector
diffusers, new     <name>.lora.down.weight, <name>.lora_linear_layer.down.weight
diffusers, old     <path to attention>.processor.to_k_lora.down.weight
xlabs              <path to attention>.processor.qkv_lora1.down.weight
LyCORIS            <name>.hada_w1_a, .lokr_w1, .diff, .diff_b, ...
ComfyUI            any of these
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

OLD = re.compile(r"(?P<module>.+?)(\.processor)?\.to_(?P<name>q|k|v|out)_lora\.(?P<part>down|up)\.weight")
CLIP_PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
XLABS = re.compile(r"(?P<module>.+\.processor\.\w+_lora\d?)\.(?P<part>down|up)\.weight")
ADAPTER_NAME = re.compile(r"(\.lora_(?:[AB]|magnitude_vector))\.(?!weight$|bias$)[^.]+(?:\.weight)?$")
"""`.lora_A.default.weight`: PEFT's name of the adapter in between."""

DOWN, UP, MID, ALPHA, WHOLE, BIAS = "down", "up", "mid", "alpha", "diff", "bias"
LOHA = tuple(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"))
LOKR = tuple(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"))
ENDINGS: dict[str, str] = {
    **{f"{name}{weight}": DOWN for name in ("lora_A", "lora_down", "lora.down") for weight in (".weight", "")},
    **{f"{name}{weight}": UP for name in ("lora_B", "lora_up", "lora.up") for weight in (".weight", "")},
    "lora_linear_layer.down.weight": DOWN,
    "lora_linear_layer.up.weight": UP,
    "lora_mid.weight": MID,
    "lora_mid": MID,
    **{name: name for name in (ALPHA, WHOLE, *LOHA, *LOKR)},
    "diff.weight": WHOLE,
    **{
        name: BIAS
        for name in ("diff_b", "lora_B.bias", "lora_A.bias", "lora_up.bias", "lora_down.bias", "lora.up.bias")
    },
}
"""The end of a key -> the kind of tensor. Their sums to a weight are in `foreign_deltas`; a bias cannot be changed."""

REFUSED: dict[str, tuple[str, ...]] = {
    "a DoRA, which rescales the whole weight": (
        *("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "magnitude", "weight.magnitude"),
        *("lora.magnitude", "dora_magnitude", "lora_magnitude", "weight_magnitude", "magnitude_vector"),
    ),
    "OFT or BOFT, which rotate the weight": (
        *("oft_blocks", "oft_diag", "oft_r", "oft_R", "oft_R.weight", "oft_R.default.weight", "oft_s"),
        *("boft_R", "boft_s", "boft_blocks", "rescale"),
    ),
    "IA3, which rescales a layer's inputs or outputs": ("ia3_l", "ia3_l.default", "on_input"),
    "GLoRA, which multiplies the weight": (
        tuple(f"{name}{weight}" for name in ("a1", "a2", "b1", "b2", "bm") for weight in (".weight", ""))
    ),
    "AdaLoRA, whose factors have a third between them": ("lora_E", "ranknum", "lora_E.default"),
    "VeRA, whose factors are drawn from a seed": ("vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B"),
    "T-LoRA, whose rank depends on the timestep": ("lambda_layer", "q_layer.weight", "p_layer.weight"),
    "changes of norms, which cannot be changed here": ("w_norm", "b_norm"),
    "weights that are to replace the base's": ("set_weight", "reshape_weight", "modules_to_save.weight"),
}
"""What cannot be imported -> the ends of its keys. The factors beside it are nothing without it."""
SCALED = "numbers in 8-bit floats with scales beside them, which cannot be read: look for the file in fp16 or bf16"
SCALES = ("scale_weight", "weight_scale", "weight.scale", "weight_scale_inv", "scale_input", "input_scale")
FACTORS = ("lora_A", "lora_B", "lora_down", "lora_up")
REFUSED[SCALED] = (*SCALES, *(f"{factor}.{scale}" for factor in FACTORS for scale in SCALES))
MARK = "scaled_fp8"
LONE_MARK = "the mark of 8-bit floats with scales, which changes nothing by itself"
KINDS = ENDINGS | {ending: reason for reason, endings in REFUSED.items() for ending in endings}
LONGEST = max(ending.count(".") for ending in KINDS) + 1


@dataclass(frozen=True)
class Key:
    """A key of a file, taken apart.

    Attributes:
        layer: the layer's name in the file.
        kind: DOWN, UP, ... or an ending as it is; None if it is not known.
        refused: why a tensor of this kind cannot be imported; None if it can be, or is not known.
    """

    layer: str
    kind: str | None
    refused: str | None = None


def split(key: str) -> Key:
    """The layer's name and the kind of tensor. Of an unknown kind the layer is all but the last part."""
    if key.rpartition(".")[2] == MARK:
        return Key(key, MARK, LONE_MARK)
    if "_lora" in key and (old := OLD.fullmatch(key)):
        projections = CLIP_PROJECTIONS if old["module"].endswith("self_attn") else PROJECTIONS
        return Key(f"{old['module']}.{projections[old['name']]}", old["part"])
    if "_lora" in key and (xlabs := XLABS.fullmatch(key)):
        return Key(xlabs["module"], xlabs["part"])
    return _ending(key) or _ending(ADAPTER_NAME.sub(r"\1.weight", key)) or Key(key.rpartition(".")[0] or key, None)


def _ending(key: str) -> Key | None:
    for layer, ending in heads(key):
        if ending in ENDINGS:
            return Key(layer, ENDINGS[ending])
        if ending in KINDS:
            return Key(layer, ending, KINDS[ending])
    return None


def heads(key: str) -> Iterator[tuple[str, str]]:
    """(layer, ending) for every place where a key may be divided, the longest ending first."""
    dots = [len(key)]
    while len(dots) <= LONGEST and (dot := key.rfind(".", 0, dots[-1])) > 0:
        dots.append(dot)
    for dot in reversed(dots[1:]):
        yield key[:dot], key[dot + 1 :]
