"""The one training loop, its settings, and going on after a kill."""

from mnemon.training.examples import Examples, joined
from mnemon.training.learner_group import ConceptTask
from mnemon.training.loop import OnPreview, OnStep, train, train_together
from mnemon.training.loss import denoising_loss, min_snr_weights
from mnemon.training.resume import discard_checkpoint
from mnemon.training.run import Until
from mnemon.training.settings import TrainingSettings

__all__ = [
    "Examples",
    "ConceptTask",
    "OnPreview",
    "OnStep",
    "TrainingSettings",
    "Until",
    "denoising_loss",
    "discard_checkpoint",
    "joined",
    "min_snr_weights",
    "train",
    "train_together",
]
