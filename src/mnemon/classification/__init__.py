"""Continual image classification: classes learned task after task on a frozen vision transformer."""

from mnemon.classification.backbone import FAMILIES, Backbone, load_backbone
from mnemon.classification.evaluating import Evaluation, accuracy_figures, evaluate_classes
from mnemon.classification.exporting import export_classifier
from mnemon.classification.library import ClassLibrary
from mnemon.classification.methods import CLASSIFIERS, ClassifierMethod, TrainedTask, classifier_from
from mnemon.classification.predicting import Classifier, frozen_features
from mnemon.classification.reading import read_examples, read_split_list, read_task
from mnemon.classification.tasks import Example, Task, class_order, split_tasks
from mnemon.classification.training import train_task
from mnemon.classification.using import backbone_of, learn_classes, method_of, predict

__all__ = [
    "ClassLibrary",
    "Evaluation",
    "accuracy_figures",
    "evaluate_classes",
    "export_classifier",
    "backbone_of",
    "learn_classes",
    "method_of",
    "predict",
    "CLASSIFIERS",
    "FAMILIES",
    "Backbone",
    "Classifier",
    "ClassifierMethod",
    "Example",
    "Task",
    "TrainedTask",
    "class_order",
    "classifier_from",
    "frozen_features",
    "load_backbone",
    "read_examples",
    "read_split_list",
    "read_task",
    "split_tasks",
    "train_task",
]
