"""Maps of class labels: from the values of a file to contiguous classes, checked."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stepsight.data.decoding.images import read_labels
from stepsight.errors import DataFormatError
from stepsight.types import IGNORE


def lookup_table(classes: dict[int, int]) -> Tensor:
    """int64 "256" that takes a file's value to its class, and all other values to `IGNORE`."""
    table = torch.full((256,), IGNORE)
    table[list(classes)] = torch.tensor(list(classes.values()))
    return table


def read_classes(path: Path, classes: int) -> Tensor:
    """The labels int64 "h w" of a file whose values are classes, or `IGNORE`.

    Raises `DataFormatError` if the file is damaged, has a value from `classes` on, or no label.
    """
    labels = read_labels(path)[0].to(torch.int64)
    check_labels(labels, classes, path)
    return labels


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Raise `DataFormatError` unless some of "h w" are labelled, and all below `classes`."""
    labelled = labels[labels != IGNORE]
    if not labelled.numel():
        raise DataFormatError(f"{path}: holds no labelled pixel.")
    if labelled.max() >= classes:
        reason = f"holds the label {labelled.max()}, where there are {classes} classes"
        raise DataFormatError(f"{path}: {reason}.")
