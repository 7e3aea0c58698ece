"""Whether a run waits for its data: said once, early enough to do something about it.

Measured from the second step to the tenth. What fills banks and caches is made once and reports
its own progress, so it counts neither as waiting nor as time.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepsight.config import RunConfig
from stepsight.training.stores import streamed

FIRST, LAST = 2, 10  # steps of this run, counted from 1; the first one starts readers and kernels
TOO_MUCH = 0.25  # share of the time


@dataclass
class Watch:
    """Sums over the measured steps."""

    steps: int = 0
    waited: float = 0.0
    spent: float = 0.0

    def step(self, waited: float, spent: float) -> float | None:
        """Count a step of `spent` seconds; after the last, the share waited if it is too much."""
        self.steps += 1
        if FIRST <= self.steps <= LAST:
            self.waited += waited
            self.spent += spent
        share = self.waited / self.spent if self.steps == LAST else 0.0
        return share if share > TOO_MUCH else None


def advice(config: RunConfig, share: float, cores: int) -> str:
    """What a person is told whose run waits for its data."""
    training, remedies = config.training, []
    if streamed(config):
        remedies.append(f"raise training.workers (now {training.workers}; {cores} cores)")
        remedies.append("write shards of loose files with `stepsight data shard`")
        if any(one.crop_scale == 1 and not one.jitter for one in streamed(config).values()):
            remedies.append("set stream False, which keeps samples at working size")
    codes = not config.own_errors and config.diffusion.objective != "end_to_end"
    if codes and not training.latents and not streamed(config):
        remedies.append("keep coded samples with training.latents FOLDER")
    way_out = "; or ".join(remedies) or "raise the size of the model or the batch"
    return f"{share:.0%} of the time goes into waiting for data: {way_out}."
