"""Samples -> one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stepsight.data.fields import Field, get, present, with_values
from stepsight.errors import UserError
from stepsight.types import Batch, Sample


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size; a quantity is kept if all samples have it.

    Raises `UserError` naming two samples whose sizes differ.
    """
    assert samples, "a batch needs a sample"
    for sample in samples:
        if sample.image.shape != samples[0].image.shape:
            sizes = [f"{s.key} {tuple(s.image.shape[-2:])}" for s in (samples[0], sample)]
            raise UserError(f"A batch needs one size, but {' and '.join(sizes)} differ.")
    stacked: dict[str, Tensor] = {}
    for row, _ in present(samples[0]):
        values = [get(sample, row.name) for sample in samples]
        if all(value is not None for value in values):
            stacked[row.name] = _stacked(row, values)
    keys, sources = ([getattr(s, name) for s in samples] for name in ("key", "source"))
    return with_values(Batch(stacked.pop("image"), keys, sources), stacked)


def _stacked(row: Field, values: list[Any]) -> Tensor:
    """Values of one field with a leading axis; lists of points filled up with rows of -1."""
    match row.kind:
        case "picture":
            return torch.stack(values).to(torch.float32) / 127.5 - 1  # 0..255 to [-1, 1]
        case "number":
            return torch.tensor(values)
        case "points":
            return pad_sequence(values, batch_first=True, padding_value=-1)
    return torch.stack(values)
