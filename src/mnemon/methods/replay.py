"""Deep generative replay (Shin et al., arXiv 1705.08690), with the model itself as the generator of the old images.

C-LoRA's paper (arXiv 2304.06027) names it among its baselines; how often and with how many images is not known here.
"""

from dataclasses import dataclass
from typing import ClassVar

from mnemon.methods.lora import Lora
from mnemon.settings import check_settings


@dataclass(frozen=True)
class Replay(Lora):
    """LoRA as in `lora`, and before concept t the model draws what it knows, to be trained on as well:

        X_j = k images of "a photo of V*_j dog", drawn by W_{t-1}, for every j < t
        L   = L_diffusion(photos of t) + w L_diffusion(X_1, ..., X_{t-1})        half of every batch each; w = 1

    No photo is kept, and no drawn image either: they are drawn again for every concept, by a model that has learned
    from its own images, so errors add up. Drawing them takes time that grows with t.
    """

    name: ClassVar[str] = "replay"
    source: ClassVar[str] = "arXiv 1705.08690, with the model itself as the generator"

    num_replay_images: int = 8
    """k, images drawn of each earlier concept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, ("num_replay_images",))
