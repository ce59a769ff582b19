"""Learning without Forgetting (Li and Hoiem, arXiv 1606.09282), for a text-to-image model.

It stands in the tables of arXiv 2410.17594 without settings; what is distilled on which prompts is this project's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mnemon.methods.base import Step, TrainedConcept
from mnemon.methods.lora import Lora, LoraLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings


class LwfLearner(LoraLearner):
    """A_t, B_t of every target module and the token vector V*_t, as in sequential LoRA; and the prompts c' of the past."""

    def __init__(
        self,
        method: "Lwf",
        name: str,
        class_noun: str | None,
        base: Base,
        past: Sequence[str],
        generator: torch.Generator,
    ) -> None:
        super().__init__(method, name, class_noun, base, generator)
        self.weight, self.past, self.first = method.distil_weight, list(past), 0

    def before_step(self, generator: torch.Generator) -> None:
        """Draw the prompt of the first row; the others follow in turn."""
        if self.past and self.training:
            self.first = int(torch.randint(len(self.past), (), generator=generator, device=generator.device))

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda · mean square of what the step's answers to c' have changed since before this concept."""
        if step is None or not self.past:
            return torch.zeros(())
        prompts = [self.past[(self.first + row) % len(self.past)] for row in range(len(step.noisy))]
        with torch.no_grad(), step.without():
            teacher = step.predict(prompts)
        change = step.predict(prompts).float() - teacher.float()
        return self.weight * change.square().mean()


@dataclass(frozen=True)
class Lwf(Lora):
    """LoRA as in `lora`, and the model is held to what it said to the prompts of earlier concepts:

        L = L_diffusion + lambda E || f_t(z_s, s, c') - f_{t-1}(z_s, s, c') ||^2        mean over entries, in fp32

    f_{t-1} is the model before concept t, f_t the model being trained, z_s the noised photos of the current concept at
    timestep s, and c' "a photo of V*_j dog" for the concepts j < t in turn. No old photo is needed: it is the old
    answer on new images that must not change. A step takes two more predictions, one of them with gradients.
    """

    name: ClassVar[str] = "lwf"
    source: ClassVar[str] = "arXiv 1606.09282, for the denoiser's predictions (a reconstruction)"

    distil_weight: float = 1.0
    """lambda."""
    distil_on: Literal["concepts", "nouns"] = "concepts"
    """c': prompts with the earlier concepts' tokens, or with nothing but their class nouns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, not_negative=("distil_weight",))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> LwfLearner:
        return LwfLearner(self, name, class_noun, base, [self.past_prompt(one) for one in earlier], generator)

    def past_prompt(self, one: TrainedConcept) -> str:
        """ "a photo of <rex> dog", or "a photo of dog"."""
        called = (
            self.prompt_name(one.name, one.class_noun)
            if self.distil_on == "concepts"
            else one.class_noun or "something"
        )
        return f"a photo of {called}"
