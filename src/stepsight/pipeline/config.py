"""Profiles: what lies between a picture and a network, and between its answers and a prediction
(standard library only).

Models from elsewhere were published together with code, which decides as much as the weights: the
size that a picture is seen at, how it gets there, what is clipped, how members are merged. An
imported checkpoint carries these choices as one value, "published"; the defaults of `Profile` are
those of stepsight itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args, get_type_hints

from stepsight.errors import UserError, suggest

Which = Literal["published", "stepsight"]
Fit = Literal["area", "longest", "longest_scaled", "square", "multiples"]
# bilinear with antialiasing (rounded: of 8 bits to 8 bits) or without, the nearest pixel as
# torch has it in two ways, or by Pillow, bilinear or bicubic
Resampling = Literal[
    "antialiased", "rounded", "bilinear", "nearest", "nearest_exact", "pillow", "pillow_cubic"
]
OWN = "stepsight"


@dataclass(frozen=True)
class Profile:
    """How pictures reach a network and its answers a prediction.

    fit: how the working size follows from a picture's:
    * "area": the area of training and the picture's aspect ratio, in multiples of what network and
      codec divide by; with a `resolution` the longer side is that;
    * "longest": the longer side is `resolution`, the other side h r // w (diffusers);
      "longest_scaled": int(h min(r / h, r / w)), which may lose a pixel (Marigold's own code);
    * "square": both sides are `resolution`;
    * "multiples": sides rounded to multiples of `multiple`, after "longest" where there is a
      `resolution`.
    """

    name: str = OWN  # the family whose conventions these are
    fit: Fit = "area"
    resolution: int = 0  # pixels; 0: as the picture is (fit "area": as trained)
    multiple: int = 1  # of fit multiples
    pad: int = 1  # right and bottom are padded by their last pixels to multiples of this
    resize_input: Resampling = "antialiased"
    resize_task: Mapping[str, Resampling] = field(default_factory=dict)  # by task, in place of it
    resize_mask: Resampling = "antialiased"  # of masks that are given, then cut at one half
    resize_output: Resampling = "antialiased"
    resize_answer: Mapping[str, Resampling] = field(default_factory=dict)  # by task, in its place
    # of the codec, what the network sees; the members of a seed see the same sample
    posterior: Literal["mean", "sample"] = "mean"
    clip: bool = False  # decoded pictures to [-1, 1], before depth is read as their channels' mean
    noise: Literal["independent", "shared"] = "independent"  # of the runs of one task
    nfe: int = 0  # model calls by default; 0: as the run's settings say
    members: int = 0  # likewise
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by task

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self:
        """What `asdict` gave. Raises UserError for what this version does not know."""
        hints = get_type_hints(cls)
        for key, value in (stored or {}).items():
            if key not in hints:
                raise UserError(f"profile: there is no '{key}'.{suggest(key, hints)}")
            by_task = key in ("resize_task", "resize_answer")
            choices = get_args(Resampling if by_task else hints[key])
            for one in value.values() if by_task else [value]:
                if isinstance(one, str) and key != "name" and one not in choices:
                    raise UserError(f"profile: {key} is {one!r}; choose from {', '.join(choices)}.")
        return cls(**(stored or {}))

    def of_task(self, task: str) -> Self:
        """With what holds for the inputs and answers of one task."""
        seen = self.resize_task.get(task, self.resize_input)
        answered = self.resize_answer.get(task, self.resize_output)
        return replace(self, resize_input=seen, resize_output=answered)

    @property
    def own(self) -> bool:
        """Whether it is stepsight's."""
        return self.name == OWN

    @property
    def id(self) -> str:
        """Name and digest of all choices."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def mark(self, protocol: str) -> str:
        """The id of a protocol, with the profile where it is not stepsight's."""
        return protocol if self.own else f"{protocol}+{self.id}"

    def differences(self) -> dict[str, Any]:
        """What is not as stepsight does it, for people."""
        every = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: x for name, x in every.items() if x != getattr(STEPSIGHT, name)}


STEPSIGHT = Profile()
