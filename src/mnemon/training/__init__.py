"""The one recipe from photos to tasks, the one training loop, its settings, and resuming after a kill."""

from mnemon.training.examples import Examples, joined
from mnemon.training.loop import OnPreview, OnStep, train
from mnemon.training.loss import denoising_loss
from mnemon.training.resume import discard_checkpoint
from mnemon.training.run import StoppingCriterion
from mnemon.training.settings import TrainingSettings
from mnemon.training.tasks import ConceptTask, PhotoSettings, make_tasks

__all__ = [
    "ConceptTask",
    "Examples",
    "OnPreview",
    "OnStep",
    "PhotoSettings",
    "StoppingCriterion",
    "TrainingSettings",
    "denoising_loss",
    "discard_checkpoint",
    "joined",
    "make_tasks",
    "train",
]
