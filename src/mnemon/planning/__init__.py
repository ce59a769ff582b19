"""How much memory a method takes on a base, estimated from configs before anything is loaded."""

from mnemon.planning.empty_model import ModelConfigs, read_configs, shipped_configs
from mnemon.planning.gpu_memory import measure_on_gpu
from mnemon.planning.plan import GPU_SIZES, USABLE_SHARE, Estimate, MemoryOptions, Plan, fitting_gpus

__all__ = [
    "GPU_SIZES",
    "USABLE_SHARE",
    "Estimate",
    "MemoryOptions",
    "ModelConfigs",
    "Plan",
    "fitting_gpus",
    "measure_on_gpu",
    "read_configs",
    "shipped_configs",
]
