"""Protocols: how a prediction becomes a number. Every reported number carries its protocol's id.

`PROTOCOLS` is the table of the room. The first row of a task is the task's default.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from stepsight.errors import UserError, suggest
from stepsight.metrics.alignment import Rule, Space

Averaging = Literal["per_image", "pooled"]  # of rows, see `reduce`


@dataclass(frozen=True)
class Protocol:
    """The choices that change a score. A field left at None does not apply to the task."""

    name: str
    task: str
    description: str
    averaging: Averaging
    alignment: Rule = "none"
    space: Space | None = None  # where the alignment is fitted
    min_depth: float | None = None  # metres: truth outside the range is not scored,
    max_depth: float | None = None  # and the aligned prediction is clipped to it
    min_hidden: float | None = None  # only objects hidden by at least this fraction of their area

    @property
    def id(self) -> str:
        """`name@hash`, the hash of what changes a score: neither prose nor fields at None."""
        fields = {k: v for k, v in asdict(self).items() if k != "description" and v is not None}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


PROTOCOLS: dict[str, Protocol] = {
    row.name: row
    for row in (
        Protocol(
            name="depth-affine-log",
            task="depth",
            description="Least-squares scale and shift of the log depth of each image over its "
            "valid pixels, exponentiated and clipped to the range; mean over images.",
            averaging="per_image",
            alignment="affine",
            space="log",
            min_depth=1e-3,
            max_depth=80.0,
        ),
        Protocol(
            name="depth-affine",
            task="depth",
            description="Least-squares scale and shift in depth, clipped to the range; mean over "
            "images (the rule of Marigold's evaluation).",
            averaging="per_image",
            alignment="affine",
            space="depth",
            min_depth=1e-3,
            max_depth=80.0,
        ),
        Protocol(
            name="depth-metric",
            task="depth",
            description="Metres as predicted, clipped to the range; mean over images.",
            averaging="per_image",
            space="depth",
            min_depth=1e-3,
            max_depth=80.0,
        ),
        Protocol(
            name="flow-epe",
            task="flow",
            description="Pixels of the image's own grid, all valid pixels; mean over images.",
            averaging="per_image",
        ),
        Protocol(
            name="amodal-iou",
            task="amodal",
            description="IoU of the whole object and of its part outside the visible mask; mean "
            "over objects hidden by at least 10 %.",
            averaging="per_image",
            min_hidden=0.1,
        ),
        Protocol(
            name="semantic-miou",
            task="semantic",
            description="One confusion matrix over all labelled pixels of the set; mean IoU over "
            "the classes that occur in truth or prediction.",
            averaging="pooled",
        ),
        Protocol(
            name="normals-angle",
            task="normals",
            description="Angle to the true normal in degrees, valid pixels; mean over images.",
            averaging="per_image",
        ),
        Protocol(
            name="image-energy",
            task="image",
            description="Energy score of the members against the real image, in the mean and "
            "standard deviation of each colour on a grid of 4 x 4 cells; mean over images. "
            "Compare it at equal numbers of members.",
            averaging="per_image",
        ),
    )
}


def get(name: str, task: str | None = None) -> Protocol:
    """The protocol of that name. Raises UserError if there is none, or if it scores another task
    than `task`."""
    fitting = [row.name for row in PROTOCOLS.values() if task in (None, row.task)]
    if name not in fitting:
        what = f" for the task '{task}'" if task else ""
        raise UserError(f"There is no protocol '{name}'{what}.{suggest(name, fitting)}")
    return PROTOCOLS[name]


def default_for(task: str) -> Protocol:
    """The task's first protocol. Raises UserError where the task has none."""
    defaults = {row.task: row for row in reversed(PROTOCOLS.values())}
    if task not in defaults:
        raise UserError(f"No protocol scores the task '{task}'.{suggest(task, defaults)}")
    return defaults[task]
