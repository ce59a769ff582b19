"""How the training loop runs, whatever the method."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from mnemon.settings import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, check_settings
from mnemon.training.optimizers import OptimizerName

ADDED = ("max_grad_norm", "optimizer", "ema_decay", "caption_dropout")
"""Settings that came later: a checkpoint that does not know one was made with its default."""
HARMLESS = ("checkpoint_seconds", "preview_every", "tensorboard", "gradient_checkpointing")
"""Settings that do not change what is learned: a run may go on under others."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training loop. A step is one step of the optimiser.

    Raises:
        MnemonError: a value does not fit, naming the setting.
    """

    steps: NonNegativeInt | None = None
    """Steps a concept; the method's default if not given."""
    batch_size: PositiveInt | None = None
    """Images a step; the method's default if not given."""
    seed: NonNegativeInt = 0
    """Seed of all random numbers. Each concept has numbers of its own, from the seed and its name."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Precision of the forward pass. fp16 needs a GPU."""
    gradient_accumulation_steps: PositiveInt = 1
    """Compute a step's batch in this many parts: less memory, the same mean gradient."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time, the same numbers."""
    optimizer: OptimizerName = "adamw"
    """The optimiser: AdamW; the same with moments in 8 bits (extra `quant`; on a GPU); Adafactor; or Prodigy (extra
    `prodigy`), which finds its step size itself and takes no learning rates."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates go on after the warm-up; linear and cosine fall to zero at the last step."""
    lr_warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rates rise from zero."""
    max_grad_norm: PositiveFloat | None = None
    """Norm to which the gradients of a step are clipped, all together; none leaves them as they are."""
    ema_decay: Fraction = 0.0
    """Decay of an exponential moving average of what is trained, kept in its place (0.99 for some hundred steps); 0 for
    none."""
    caption_dropout: Fraction = 0.0
    """Share of a step's images that are trained without their prompt; the first one of a step always has its."""
    snr_gamma: PositiveFloat | None = None
    """gamma of min-SNR weighting (arXiv 2303.09556; 5 is usual); none weighs all timesteps alike."""
    prior_loss_weight: NonNegativeFloat = 1.0
    """Weight of the class images' loss, where class images are given."""
    masked_loss: bool = False
    """Weigh the loss by the photos' masks: white counts, black does not."""
    checkpoint_seconds: NonNegativeFloat = 30.0
    """Time between checkpoints; 0 takes one after every step."""
    preview_every: NonNegativeInt = 0
    """Steps between previews; 0 for none."""
    tensorboard: bool = False
    """Write the losses for TensorBoard into the run's folder."""

    def __post_init__(self) -> None:
        check_settings(self)

    def decisive(self) -> dict[str, Any]:
        """The settings that change what is learned."""
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in HARMLESS and not (name in ADDED and value == defaults[name])
        }

    def lr_factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied by at `step` (0-based) of `steps`, in 0..1."""
        if step < self.lr_warmup_steps:
            return (step + 1) / (self.lr_warmup_steps + 1)
        if self.lr_scheduler == "constant":
            return 1.0
        done = (step - self.lr_warmup_steps) / max(steps - self.lr_warmup_steps, 1)
        if self.lr_scheduler == "linear":
            return 1 - done
        return 0.5 * (1 + math.cos(math.pi * done))
