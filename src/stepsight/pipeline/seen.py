"""Pictures as a network sees them, which may come from pictures of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from stepsight.pipeline.adaptive import picked
from stepsight.pipeline.working import Size
from stepsight.types import Batch


@dataclass(frozen=True)
class SeenBatch:
    """The inputs of a batch at working size."""

    inputs: Batch
    pictures: Tensor  # int64 "b", what the noise of each picture follows from
    size: Size  # without what was padded

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, rows: Sequence[int]) -> SeenBatch:
        """Some of the pictures, in this order."""
        if [*rows] == [*range(len(self))]:
            return self
        return SeenBatch(picked(self.inputs, [*rows]), self.pictures[[*rows]], self.size)


def together(parts: Sequence[SeenBatch]) -> SeenBatch:
    """Pictures of one size and of one task, below one another."""
    if len(parts) == 1:
        return parts[0]
    first, made = parts[0].inputs, dict[str, Any]()
    for field in fields(Batch):
        values = [getattr(part.inputs, field.name) for part in parts]
        if isinstance(values[0], Tensor):
            made[field.name] = torch.cat(values)
        elif isinstance(values[0], list):
            made[field.name] = [one for value in values for one in value]
    made["extra"] = {name: torch.cat([p.inputs.extra[name] for p in parts]) for name in first.extra}
    return SeenBatch(Batch(**made), torch.cat([part.pictures for part in parts]), parts[0].size)
