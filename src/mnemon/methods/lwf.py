"""Learning without Forgetting (Li and Hoiem, arXiv 1606.09282), for a text-to-image model.

It stands in the tables of arXiv 2410.17594 without settings; what is distilled on which prompts is this project's own.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mnemon.methods.base import Start, Step, TrainedConcept
from mnemon.methods.low_rank import LoraLearner, LoraMethod
from mnemon.settings import NonNegativeFloat


class LwfLearner(LoraLearner):
    """A_t, B_t of every target module and the token V*_t, as in sequential LoRA; and the prompts c' to distil on."""

    def __init__(self, method: "Lwf", start: Start) -> None:
        super().__init__(method, start)
        self.weight, self.past = method.distil_weight, list(map(method.past_prompt, start.earlier))
        self.first, self.rows = 0, 0  # the first row's prompt; rows of this step that have had theirs

    def before_step(self, generator: torch.Generator) -> None:
        """Sample the prompt of the first row; the other rows follow in turn."""
        if self.past and self.training:
            self.first = int(torch.randint(len(self.past), (), generator=generator, device=generator.device))

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda E || f_t(z_s, s, c') - f_{t-1}(z_s, s, c') ||^2."""
        if step is None or not self.past:
            return torch.zeros(())
        rows = range(self.rows, self.rows + len(step.noisy))
        prompts, self.rows = [self.past[(self.first + row) % len(self.past)] for row in rows], rows.stop
        with torch.no_grad(), step.without():
            teacher = step.predict(prompts)
        change = step.predict(prompts).float() - teacher.float()
        distance = step.shares @ change.square().flatten(1).mean(1)
        return self.protecting("distil_weight", self.weight, distance)

    def after_step(self, progress: float) -> None:
        self.rows = 0


@dataclass(frozen=True)
class Lwf(LoraMethod):
    """LoRA as in `lora`, with the predictions for prompts of earlier concepts distilled from the model before:

        L = L_diffusion + lambda E || f_t(z_s, s, c') - f_{t-1}(z_s, s, c') ||^2        mean over entries, in fp32

    f_{t-1} is the model before concept t, f_t the model being trained, z_s the noised images of the current concept at
    timestep s, and c' "a photo of V*_j dog" for the concepts j < t in turn. No earlier image is needed: the teacher's
    predictions on the new images stand in for them. A step takes two more predictions, one of them with gradients.
    """

    name: ClassVar[str] = "lwf"
    source: ClassVar[str] = "arXiv 1606.09282, for the denoiser's predictions (a reconstruction)"

    distil_weight: NonNegativeFloat = 1.0
    """lambda."""
    distil_on: Literal["concepts", "nouns"] = "concepts"
    """c': prompts with the earlier concepts' tokens, or with nothing but their class nouns."""

    def begin(self, start: Start) -> LwfLearner:
        return LwfLearner(self, start)

    def past_prompt(self, concept: TrainedConcept) -> str:
        """ "a photo of <rex> dog", or "a photo of dog"."""
        if self.distil_on == "concepts":
            return f"a photo of {self.prompt_name(concept.name, concept.class_noun)}"
        return f"a photo of {concept.class_noun or 'something'}"
