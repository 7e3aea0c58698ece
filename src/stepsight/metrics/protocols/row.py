"""What a protocol is: every choice between a prediction and a number, as one hashed value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from stepsight.metrics.alignment.align import Rule, Space
from stepsight.metrics.masks.regions import Crop, Mask

Averaging = Literal["per_image", "pooled"]  # of rows, see `reduce`
Absent = Literal["skipped", "zero"]  # of the mean over classes, those in neither truth nor guess

PROSE = {"description", "source", "metrics"}  # what is printed, not how it is computed
ALWAYS = {"alignment"}  # in the hash at its default as well


@dataclass(frozen=True)
class Protocol:
    """The choices that change a score. A field at its default does not apply to the task."""

    name: str
    task: str
    description: str
    averaging: Averaging
    alignment: Rule = "none"
    space: Space | None = None  # where the alignment is fitted
    min_depth: float | None = None  # metres: truth outside the range is not scored,
    max_depth: float | None = None  # and the aligned prediction is clipped to it
    min_hidden: float | None = None  # only objects hidden by at least this fraction of their area
    full_view: bool = (
        False  # objects in full view count in iou_hidden, with a union of false pixels
    )
    source: str = ""  # paper or repository
    metrics: tuple[str, ...] = ()  # those that are reported; none named: all there are
    pooled: tuple[str, ...] = ()  # metrics pooled over pixels although images are averaged
    crop: Crop = "none"  # of image and truth, before inference
    mask: Mask = "none"  # the part of the (cropped) image that is scored
    working: int | None = None  # longest side the model sees; 0: native; None: as it was trained
    data: str | None = None  # the data set it is defined on, its split, and
    split: str | None = None
    count: int | None = None  # the images that the whole split has
    needs: str | None = None  # the quantity of truth, where it is not the task's own
    besides: str | None = None  # a quantity of truth besides that
    strict: bool = False  # the range excludes its ends
    selects: bool = True  # False: the range clips predictions but leaves out no truth
    clip: Literal["range", "truth", "none"] = "range"  # truth: up to the image's largest depth
    scored_in: Literal["depth", "disparity", "normalised"] = "depth"
    epsilon: float = 0.0  # added to the truth by which abs_rel divides
    min_valid: int | None = None  # images with fewer scored pixels are left out
    fit_positive: bool = False  # the fit sees only pixels whose prediction is positive in its space
    fit_width: int | None = None  # columns the fit sees of larger images, see `alignment.thinned`
    max_flow: float | None = None  # pixels: longer true vectors are not scored
    unit: float | None = None  # pixels at 1 of `epe_units`
    absent: Absent = "skipped"

    def truths(self, usual: Iterable[str]) -> frozenset[str]:
        """The quantities of truth it is scored against, of a task with `usual` ones."""
        return frozenset([self.needs] if self.needs else usual).union(filter(None, [self.besides]))

    @property
    def id(self) -> str:
        """`name@hash`, the hash of what changes a score: neither prose nor fields at default."""
        text = json.dumps(self._choices(), sort_keys=True, separators=(",", ":"))
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def _choices(self) -> dict[str, object]:
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {
            name: value
            for name, (value, default) in values.items()
            if name not in PROSE and (default is MISSING or name in ALWAYS or value != default)
        }


def on(data: str, split: str, count: int | None = None, **more: Any) -> dict[str, Any]:
    """The fields of a protocol that is defined on one split of a data set, of `count` images, and
    what else is particular to it."""
    return {"data": data, "split": split, "count": count, **more}
