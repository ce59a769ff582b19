"""What was learned as a plain transformers folder, which opens without mnemon."""

from pathlib import Path
from typing import Any

import torch

from mnemon.classification.backbone import FAMILIES, Backbone
from mnemon.classification.library import ClassLibrary
from mnemon.classification.predicting import Classifier
from mnemon.errors import MnemonError
from mnemon.files import new_folder, write_json


def export_classifier(library: Path | str, out: Path | str, backbone: Backbone, at: int | None = None) -> Path:
    """Write the merged weights and the head as an image classifier of transformers, `ViTForImageClassification` for a
    ViT; its logits are those of the library. Returns the folder.

    Raises:
        MnemonError: the method keeps more than weights, transformers has no classifier of this family that reads the
            class token, nothing was learned, or the folder is not empty.
    """
    import transformers

    from mnemon.models.pipeline_folder import without_bars

    opened, folder = ClassLibrary.open(library, at), Path(out)
    opened.check_backbone(backbone)
    if not opened.method.merges:
        raise MnemonError(
            f"What '{opened.method.name}' learns is no change of the weights, so there is no plain model of it: "
            "predict with `mnemon classify predict`."
        )
    family = FAMILIES[backbone.family]
    if family.classifier is None:
        raise MnemonError(
            f"transformers has no classifier of the family '{backbone.family}' that reads the class token: export is "
            "for vit, deit and dinov2."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MnemonError(f"{folder} is not an empty folder: choose another place for the export.")
    with Classifier.opened(backbone, opened.method, opened.learned()) as classifier, new_folder(folder) as aside:
        config = type(backbone.config).from_dict({**backbone.config.to_dict(), **_labels(classifier.classes)})
        plain: Any = getattr(transformers, family.classifier)(config)
        body = getattr(plain, plain.base_model_prefix)
        body.load_state_dict(backbone.model.state_dict())
        weight = classifier.head["weight"]
        if family.pools_patches:  # the mean of the patches, beside the class token, is not read
            weight = torch.cat([weight, torch.zeros_like(weight)], 1)
        plain.classifier.weight.data, plain.classifier.bias.data = weight.cpu().clone(), classifier.head["bias"].cpu()
        with without_bars():
            plain.save_pretrained(aside)
        write_json(aside / "preprocessor_config.json", _processor(backbone, opened.method.normalization == "backbone"))
    return folder


def _labels(classes: list[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(classes)),
        "label2id": {label: number for number, label in enumerate(classes)},
        "num_labels": len(classes),
    }


def _processor(backbone: Backbone, normalised: bool) -> dict[str, Any]:
    """The view that images are tested in, for transformers' image processor."""
    side = backbone.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",  # the one that resizes the shorter side and crops the middle
        "do_resize": True, "size": {"shortest_edge": round(side * 256 / 224)}, "resample": 2,
        "do_center_crop": True, "crop_size": {"height": side, "width": side},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_convert_rgb": True,
        "do_normalize": normalised, "image_mean": list(backbone.mean), "image_std": list(backbone.std),
    }  # fmt: skip
