"""How much of a run's loss protects earlier concepts, so that a method whose protection does nothing says so."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.training.learner_group import LearnerGroup

INERT = 1e-3
"""What protects earlier concepts hardly acts below this share of the denoising loss, on the mean of a run."""
log = logging.getLogger("mnemon")


class PenaltyMeter(nn.Module):
    """Sums over the steps of a run: part of its checkpoint, and on the device, so that no GPU is waited for."""

    sums: Tensor

    def __init__(self, group: LearnerGroup, device: torch.device) -> None:
        super().__init__()
        self._learners = list(group)  # in a list, so that they are no submodules
        self.register_buffer("sums", torch.zeros(2, device=device))  # of the denoising loss and of what protects

    def add(self, loss: Tensor, parts: int) -> None:
        """Count one of the `parts` of a step, after `regularization_loss`; its denoising losses add up over them."""
        protection = [learner.protection[1] for learner in self._learners if learner.protection is not None]
        if protection:
            self.sums += torch.stack([loss.detach(), torch.stack(protection).sum() / parts])

    def facts(self) -> dict[str, Any]:
        """What is kept of it with each concept of the run; nothing where there was nothing to protect."""
        loss, protection = self.sums.tolist()
        if not loss:
            return {}
        share = protection / loss
        for learner in self._learners:
            if share < INERT and learner.protection is not None:
                log.warning(
                    "What protects the concepts before '%s' was %.2g of the loss, so it hardly acted: raise '%s'.",
                    learner.name,
                    share,
                    learner.protection[0],
                )
        return {"penalty_share": share}
