"""Deep generative replay (Shin et al., arXiv 1705.08690), with the model itself as the generator of the old images.

C-LoRA's paper (arXiv 2304.06027) names it among its baselines; how often and with how many images is not known here.
"""

from dataclasses import dataclass
from typing import ClassVar

from mnemon.methods.low_rank import LoraMethod
from mnemon.settings import PositiveInt


@dataclass(frozen=True)
class Replay(LoraMethod):
    """LoRA as in `lora`, trained on generated images of the earlier concepts as well:

        X_j = k images of "a photo of V*_j dog", sampled with W_{t-1}, for every j < t
        L   = L_diffusion(photos of t) + w L_diffusion(X_1, ..., X_{t-1})        half of every batch each; w = 1

    Neither photos nor generated images are stored: the latter are generated anew for every concept, by a model trained
    on its own images, so errors add up. The time this takes grows with t.
    """

    name: ClassVar[str] = "replay"
    source: ClassVar[str] = "arXiv 1705.08690, with the model itself as the generator"

    num_replay_images: PositiveInt = 8
    """k, images generated of each earlier concept."""
