"""How much memory a method takes on a base, estimated from configs before anything is loaded."""

from mnemon.planning.choosing import Choice, choose, wishes
from mnemon.planning.empty_model import ModelConfigs, read_configs, shipped_configs
from mnemon.planning.gpu_memory import measure_on_gpu
from mnemon.planning.plan import GB, GPU_SIZES, USABLE_SHARE, Estimate, MemoryOptions, Plan, fitting_gpus

__all__ = [
    "GB",
    "GPU_SIZES",
    "USABLE_SHARE",
    "Choice",
    "Estimate",
    "MemoryOptions",
    "ModelConfigs",
    "Plan",
    "choose",
    "fitting_gpus",
    "measure_on_gpu",
    "read_configs",
    "shipped_configs",
    "wishes",
]
