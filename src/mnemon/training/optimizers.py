"""Optimisers of kept libraries, by the names that trainers give them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from mnemon.errors import MnemonError

OptimizerName = Literal["adamw", "adamw8bit", "adafactor", "prodigy"]
Groups = Sequence[Mapping[str, Any]]


def make_optimizer(name: OptimizerName, groups: Groups, device: torch.device) -> torch.optim.Optimizer:
    """An optimiser of parameter groups with a learning rate each, without weight decay.

    adamw: torch's. adamw8bit: its moments in 8 bits, by bitsandbytes (extra `quant`). adafactor: second moments as rows
    and columns (arXiv 1804.04235), of transformers, at the groups' own rates. prodigy: one step size for all groups,
    found while it goes (arXiv 2306.06101), by prodigyopt (extra `prodigy`); the groups' rates count as 1.

    Raises:
        MnemonError: its library is not installed, or has none for this device.
    """
    given = [dict(group) for group in groups]
    if name == "adamw":
        return torch.optim.AdamW(given, weight_decay=0.0, fused=True)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(given, scale_parameter=False, relative_step=False, warmup_init=False)
    if name == "prodigy":
        own = [{**group, "lr": 1.0} for group in given]
        optimizer: torch.optim.Optimizer = _imported("prodigyopt", "prodigy").Prodigy(
            own, weight_decay=0.0, use_bias_correction=True, safeguard_warmup=True
        )
        return optimizer
    if device.type == "cpu":
        raise MnemonError("The optimizer 'adamw8bit' needs a GPU: use 'adamw', or 'adafactor' for less memory.")
    optimizer = _imported("bitsandbytes", "quant").optim.AdamW8bit(given, weight_decay=0.0)
    return optimizer


def _imported(package: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError:
        raise MnemonError(
            f"This optimizer needs {package}, of the extra '{extra}': pip install 'mnemon[{extra}]'."
        ) from None
