"""What only Cityscapes measures (Cordts et al. 2016, section 4.1; mcordts/cityscapesScripts,
`evalPixelLevelSemanticLabeling.py`): IoU of categories, and IoU in which every instance counts
alike whatever its size. Classes are its 19 trainIds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.metrics.masks.segmentation import miou

# Of every class: flat, construction, object, nature, sky, human, vehicle.
CATEGORIES = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6)
SIZES = {  # by class, pixels of the average instance: person, rider, car and so on
    11: 3462.4756337644,
    12: 3930.4788056518,
    13: 12794.0202738185,
    14: 27855.1264367816,
    15: 35732.1511111111,
    16: 67583.7075812274,
    17: 6298.7200839748,
    18: 4672.3249222261,
}


def weighted_instances(pred: Tensor, labels: Tensor, instances: Tensor) -> Tensor:
    """Pixels of true instances, each weighed by the average size of its class over its own, of maps
    "b h w" as "b 19 3": those of the right class, of a class of the right category, all. Groups
    (instance -1) are left out."""
    found = torch.zeros(len(pred), len(CATEGORIES), 3, dtype=torch.float64, device=pred.device)
    category = torch.tensor(CATEGORIES, device=pred.device)
    for image, (guess, truth, number) in enumerate(zip(pred.long(), labels, instances)):
        for label, size in SIZES.items():
            own = (truth == label) & (number > 0)
            numbers, guesses = number[own], guess[own]
            weight = size / torch.bincount(numbers).double()[numbers]
            right = guesses == label, category[guesses] == CATEGORIES[label]
            parts = [*(weight[hit].sum() for hit in right), weight.sum()]
            found[image, label] = torch.stack(parts)
    return found


def category_iou(confusion: Tensor) -> Tensor:
    """Mean IoU over the categories that occur, "... 19 19" -> "..."."""
    return miou(_merged(confusion))


def instance_iou(confusion: Tensor, weighted: Tensor) -> Tensor:
    """iIoU: TP / (TP + FP + FN), mean over classes with instances that occur, where TP and FN are
    weighed (`weighted_instances`) and FP are pixels, "... 19 19" and "... 19 3" -> "..."."""
    things = sorted(SIZES)
    wrong = confusion.sum(-2) - confusion.diagonal(dim1=-2, dim2=-1)
    hits, _, total = weighted[..., things, :].unbind(-1)
    return (hits / (total + wrong[..., things])).nanmean(-1)


def category_instance_iou(confusion: Tensor, weighted: Tensor) -> Tensor:
    """The same of the categories human and vehicle."""
    merged = _merged(confusion)
    wrong = merged.sum(-2) - merged.diagonal(dim1=-2, dim2=-1)
    _, hits, total = (weighted.mT @ _membership(weighted)).unbind(-2)
    things = sorted({CATEGORIES[label] for label in SIZES})
    return (hits[..., things] / (total + wrong[..., :])[..., things]).nanmean(-1)


def _merged(confusion: Tensor) -> Tensor:
    """By true and predicted category, "... 19 19" -> "... 7 7"."""
    of = _membership(confusion)
    return of.mT @ confusion @ of


def _membership(like: Tensor) -> Tensor:
    """1 where a class belongs to a category, "19 7"."""
    return F.one_hot(torch.tensor(CATEGORIES, device=like.device)).to(like)
