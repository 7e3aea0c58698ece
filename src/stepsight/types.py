"""The values that flow between the rooms. They carry data and can move it; they decide nothing.

Disk to loss:    Sample -> Batch -> (Condition, Target) -> ModelInputs -> loss.
Image to metric: Batch -> ModelInputs -> sampler -> Prediction -> one row of numbers per image.

Shapes are einops strings; `b` is the batch, `h w` the pixel grid of the image they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from stepsight.rowwise import picked_rows

IGNORE = 255  # label of pixels that carry no class
NULL = -1  # class of pictures that are generated without one
ADDED: set[str] = set()  # names of the quantities that other packages add (`data/fields.py`)


class Movable:
    """`.to()` and `.pin_memory()` for dataclasses of tensors: accelerate moves what has them."""

    def _map(self, move: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changed[f.name] = move(value)
            elif isinstance(value, dict):
                changed[f.name] = {name: move(tensor) for name, tensor in value.items()}
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: Any = None, non_blocking: bool = False) -> Self:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass(kw_only=True)
class Quantities(Movable):
    """What a sample may hold besides its image, and a batch with a leading `b`.

    Every field has a row in `data/fields.py`, which says what is done with it. What other packages
    add lies in `extra` and reads as an attribute, None where absent.
    """

    second: Tensor | None = None  # uint8 "3 h w", the next frame; in batches as their image
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
    whole: Tensor | None = None  # uint8 "3 h w", the object unhidden, on white; in batches as above
    normals: Tensor | None = None  # float32 "3 h w", unit; x right, y down, z forward
    normals_valid: Tensor | None = None  # bool "1 h w"
    order: Tensor | None = None  # int64 "n 4": row, column of a point, then of one farther away;
    # in batches rows of -1 where a sample has fewer pairs
    extra: dict[str, Tensor] = field(default_factory=dict)

    if not TYPE_CHECKING:  # a misspelt attribute is still an error to type checkers

        def __getattr__(self, name: str) -> Tensor | None:
            if name in ADDED:
                return self.extra.get(name)
            raise AttributeError(f"{type(self).__name__} has no '{name}'; no package adds it.")

        def __setattr__(self, name: str, value: Any) -> None:
            if name in ADDED:  # a new dictionary: `replace` shares the old one between copies
                extra = {other: held for other, held in self.extra.items() if other != name}
                name, value = "extra", extra if value is None else {**extra, name: value}
            super().__setattr__(name, value)


@dataclass
class Sample(Quantities):
    """One image with whatever truth its source has, in physical units, at the source's own size."""

    image: Tensor  # uint8 "3 h w" RGB
    key: str  # unique within the source
    source: str
    class_id: int | None = None


@dataclass
class Batch(Quantities):
    """Samples of equal size, stacked: the same fields with a leading `b`; images in [-1, 1]."""

    image: Tensor  # float32 "b 3 h w" in [-1, 1]
    keys: list[str]
    sources: list[str]
    class_id: Tensor | None = None  # int64 "b"; NULL for none

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
class ModelInputs(Movable):
    """A batch in the codec's working space: what the loss takes.

    Rows of several tasks may stand below one another; then `featured` says which have features.
    """

    x: Tensor | None  # "b c h w" clean target, None when there is none to learn from
    cond: Tensor  # "b k h w" condition images, channels concatenated
    features: Tensor | None  # "b f h' w'"
    valid: Tensor | None  # float32 "b c h w" in {0, 1}: entries inside the loss
    label: Tensor  # int64 "b": task or class row of the backbone's embedding
    featured: Tensor | None = None  # int64 "m", rows that `features` "m ..." are of; None: all
    look: Look | None = None  # what `featured` rows see anew at every call
    temperature: Tensor | None = None  # "b", scale of the noise that x starts from; None: 1
    encoded: tuple[Tensor, ...] | None = None  # what the backbone made of it, once for all calls
    null: Tensor | None = None  # "b", label of the answers that guidance leads away from, if any
    null_encoded: tuple[Tensor, ...] | None = None  # what the backbone made of it under that label

    def rows(self, picks: Tensor) -> Self:
        """Some rows of one task, again with what was encoded."""
        picks = picks.to(self.label.device)

        def of(value: Tensor | None) -> Tensor | None:
            return None if value is None else picked_rows(value, picks)

        assert self.featured is None, "rows of several tasks are picked where they are joined"

        def each(maps: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return maps and tuple(picked_rows(one, picks) for one in maps)

        return replace(
            self,
            x=of(self.x),
            cond=picked_rows(self.cond, picks),
            features=of(self.features),
            valid=of(self.valid),
            label=self.label[picks],
            temperature=of(self.temperature),
            encoded=each(self.encoded),
            null=of(self.null),
            null_encoded=each(self.null_encoded),
        )

    def labelled_once(self) -> Self:
        """With one row of the label, which holds for all."""
        null = None if self.null is None else self.null[:1]
        return replace(self, label=self.label[:1], null=null)


@dataclass
class Prediction(Movable):
    """A task's answer for a batch."""

    task: str
    x: Tensor  # "b c h w" in the task's target space (what members are merged in)
    values: Tensor  # "b c h w" physical: metres, pixels, probabilities, class ids, unit vectors
    uncertainty: Tensor | None = None  # "b 1 h w", unit stated by the task; None for one member
    picture: Tensor | None = None  # uint8 "b 3 h w"
