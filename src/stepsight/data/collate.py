"""Samples -> one batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stepsight.errors import UserError
from stepsight.types import Batch, Sample, stack_optional

PICTURES = ("second", "whole")  # besides `image`
STACKED = (
    "depth",
    "depth_valid",
    "flow",
    "flow_valid",
    "occluded",
    "labels",
    "instances",
    "modal",
    "amodal",
    "amodal_valid",
    "normals",
    "normals_valid",
)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size; a quantity is kept if all samples have it.

    Raises `UserError` naming two samples whose sizes differ.
    """
    assert samples, "a batch needs a sample"
    for sample in samples:
        if sample.image.shape != samples[0].image.shape:
            sizes = [f"{s.key} {tuple(s.image.shape[-2:])}" for s in (samples[0], sample)]
            raise UserError(f"A batch needs one size, but {' and '.join(sizes)} differ.")
    pictures = {name: stack_optional([getattr(s, name) for s in samples]) for name in PICTURES}
    classes = [sample.class_id for sample in samples if sample.class_id is not None]
    return Batch(
        image=_to_unit(torch.stack([sample.image for sample in samples])),
        keys=[sample.key for sample in samples],
        sources=[sample.source for sample in samples],
        class_id=torch.tensor(classes) if len(classes) == len(samples) else None,
        order=_padded([sample.order for sample in samples]),
        **{name: _to_unit(x) for name, x in pictures.items() if x is not None},
        **{name: stack_optional([getattr(s, name) for s in samples]) for name in STACKED},
    )


def _padded(orders: list[Tensor | None]) -> Tensor | None:
    """Lists of pairs "n 4" of different lengths, stacked; None unless all samples have one."""
    present = [order for order in orders if order is not None]
    if len(present) < len(orders):
        return None
    return pad_sequence(present, batch_first=True, padding_value=-1)


def _to_unit(images: Tensor) -> Tensor:
    """uint8 to float32: 0..255 to [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1
