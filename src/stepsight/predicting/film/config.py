"""How films are answered (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FilmSettings:
    """What ties the answers of a film together."""

    smoothing: float = 0.85  # share of the answer before, where pictures agree; 0: none
    align: bool = True  # relative depth to the previous frame's, by scale and shift
    # noise: frames start alike, many at once; previous: each from the answer before it, in half of
    # the calls
    starts: Literal["noise", "previous"] = "noise"
    window: int = 8  # frames that pass the network together
