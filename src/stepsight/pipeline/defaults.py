"""How a model answers by default, task by task.

A run chooses on scenes that it neither trained on nor is scored on, and its checkpoint keeps what
it chose; before that, and for models from elsewhere, the settings of evaluation hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stepsight.evaluation.config import EvaluationSettings


@dataclass(frozen=True)
class SamplingSetting:
    """Model calls per member, members, the temperature of their starts, and what calls see."""

    nfe: int
    members: int
    temperature: float
    views: str
    settled: bool = field(default=False, compare=False)  # the temperature whatever the members

    @classmethod
    def of(cls, settings: EvaluationSettings, chosen: Mapping[str, Any] | None) -> SamplingSetting:
        """What was chosen, else the settings; where they leave it open one member starts from
        zeros, several from noise. Views are for one member: several differ enough."""
        if chosen:
            return cls(*(chosen[name] for name in ("nfe", "members", "temperature", "views")))
        several, temperature = settings.members > 1, settings.temperature
        temperature = float(several) if temperature is None else temperature
        views = "none" if several else settings.views
        settled = settings.temperature is not None
        return cls(settings.nfe, settings.members, temperature, views, settled)

    def changed(
        self,
        nfe: int | None = None,
        members: int | None = None,
        temperature: float | None = None,
        views: str | None = None,
    ) -> SamplingSetting:
        """The same but for what is given. Another number of members gets starts that suit it:
        zeros for one, the diffusion's own noise for several."""
        changed = replace(self, nfe=self.nfe if nfe is None else nfe)
        if members is not None and members != self.members:
            several = members > 1
            start = self.temperature if self.settled else float(several)
            views_then = "none" if several else self.views
            changed = replace(changed, members=members, temperature=start, views=views_then)
        if temperature is not None:
            changed = replace(changed, temperature=temperature)
        return changed if views is None else replace(changed, views=views)
