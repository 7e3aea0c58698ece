"""The values that flow between the rooms. They carry data and can move it; they decide nothing.

Disk to loss:    Sample -> Batch -> (Condition, Target) -> Coded -> loss.
Image to metric: Batch -> Coded -> sampler -> Prediction -> one row of numbers per image.

Shapes are einops strings; `b` is the batch, `h w` the pixel grid of the image they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

IGNORE = 255  # label of pixels that carry no class


class Movable:
    """`.to()` and `.pin_memory()` for dataclasses of tensors: accelerate moves what has them."""

    def _map(self, move) -> Self:
        changed = {
            f.name: move(value)
            for f in fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: Any = None, non_blocking: bool = False) -> Self:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass
class Sample(Movable):
    """One image with whatever truth its source has, in physical units, at the source's own size."""

    image: Tensor  # uint8 "3 h w" RGB
    key: str  # unique within the source
    source: str
    second: Tensor | None = None  # uint8 "3 h w", the next frame
    depth: Tensor | None = None  # float32 "1 h w", metres along the optical axis
    depth_valid: Tensor | None = None  # bool "1 h w"
    flow: Tensor | None = None  # float32 "2 h w", pixels of this grid: u right, v down
    flow_valid: Tensor | None = None  # bool "1 h w"
    occluded: Tensor | None = None  # bool "1 h w", where the second image does not show the pixel
    labels: Tensor | None = None  # int64 "h w", IGNORE where unlabelled
    instances: Tensor | None = None  # int64 "h w", from 1 within a class; 0 stuff, -1 a crowd
    modal: Tensor | None = None  # bool "1 h w", the visible part of the chosen object
    amodal: Tensor | None = None  # bool "1 h w", the whole object; contains modal
    amodal_valid: Tensor | None = None  # bool "1 h w"; all False when no object was chosen
    whole: Tensor | None = None  # uint8 "3 h w", the chosen object unhidden, on white
    normals: Tensor | None = None  # float32 "3 h w", unit; x right, y down, z forward
    normals_valid: Tensor | None = None  # bool "1 h w"
    order: Tensor | None = None  # int64 "n 4": row, column of a point, then of one farther away
    class_id: int | None = None


@dataclass
class Batch(Movable):
    """Samples of equal size, stacked: the same fields with a leading `b`; images in [-1, 1]."""

    image: Tensor  # float32 "b 3 h w" in [-1, 1]
    keys: list[str]
    sources: list[str]
    second: Tensor | None = None  # float32 "b 3 h w" in [-1, 1]
    depth: Tensor | None = None
    depth_valid: Tensor | None = None
    flow: Tensor | None = None
    flow_valid: Tensor | None = None
    occluded: Tensor | None = None
    labels: Tensor | None = None
    instances: Tensor | None = None
    modal: Tensor | None = None
    amodal: Tensor | None = None
    amodal_valid: Tensor | None = None
    whole: Tensor | None = None  # float32 "b 3 h w" in [-1, 1]
    normals: Tensor | None = None
    normals_valid: Tensor | None = None
    order: Tensor | None = None  # int64 "b n 4", rows of -1 where a sample has fewer pairs
    class_id: Tensor | None = None  # int64 "b"

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class Condition(Movable):
    """What the backbone may look at besides the noisy target."""

    images: Tensor  # float32 "b n 3 h w" in [-1, 1]; n may be 0; these pass the codec
    features: Tensor | None = None  # "b f h' w'", e.g. a cost volume; these do not


@dataclass
class Target(Movable):
    """The truth as an image of roughly unit scale, and where it counts."""

    x: Tensor  # float32 "b c h w"; invalid pixels are filled with something harmless
    valid: Tensor  # bool "b 1 h w"


# (estimate of the target "m c h w", condition images "m k h w") -> "m g h2 w2"
Look = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Coded(Movable):
    """A batch in the codec's working space: what the loss takes.

    Rows of several tasks may stand below one another; then `featured` says which have features.
    """

    x: Tensor | None  # "b c h w" clean target, None when there is none to learn from
    cond: Tensor  # "b k h w" condition images, channels concatenated
    features: Tensor | None  # "b f h' w'"
    valid: Tensor | None  # float32 "b c h w" in {0, 1}: entries inside the loss
    label: Tensor  # int64 "b": task or class row of the backbone's embedding
    featured: Tensor | None = None  # int64 "m", rows that `features` "m ..." are of; None: all
    pictures: Tensor | None = None  # int64 "b", equal for rows that show the same picture
    look: Look | None = None  # what `featured` rows see anew at every call
    temperature: Tensor | None = None  # "b", scale of the noise that x starts from; None: 1
    encoded: tuple[Tensor, ...] | None = None  # what the backbone made of it, once for all calls

    def rows(self, picks: Tensor) -> Self:
        """Some rows of one task, again with what was encoded."""
        picks = picks.to(self.label.device)

        def of(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[picks]

        assert self.featured is None, "rows of several tasks are picked where they are joined"
        encoded = self.encoded and tuple(one[picks] for one in self.encoded)
        return replace(
            self,
            x=of(self.x),
            cond=self.cond[picks],
            features=of(self.features),
            valid=of(self.valid),
            label=self.label[picks],
            pictures=of(self.pictures),
            temperature=of(self.temperature),
            encoded=encoded,
        )


@dataclass
class Prediction(Movable):
    """A task's answer for a batch."""

    task: str
    x: Tensor  # "b c h w" in the task's target space (what members are merged in)
    values: Tensor  # "b c h w" physical: metres, pixels, probabilities, class ids, unit vectors
    uncertainty: Tensor | None = None  # "b 1 h w", unit stated by the task; None for one member
    picture: Tensor | None = None  # uint8 "b 3 h w"


def stack_optional(values: list[Tensor | None]) -> Tensor | None:
    """Stack tensors, or None when any is missing: a batch offers only what all its samples have."""
    present = [value for value in values if value is not None]
    return torch.stack(present) if len(present) == len(values) else None
