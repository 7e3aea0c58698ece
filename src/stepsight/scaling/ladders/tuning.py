"""Learning rates by short runs, in place of a guess: a factor for each size, or from one for all.

Under a standard parametrisation the best rate moves with the size, and each has to be tuned. Under
muP (`model.parametrisation: mup`) that of a small model is that of all, and `at` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from stepsight.scaling.ladders.ladder import Ladder, LadderStage, Rung, Settings, made, rungs, slug


def held_out(
    ladder: Ladder,
    parents: Sequence[Rung] | None = None,
    factors: Mapping[Any, float] | None = None,
) -> list[Rung]:
    """The runs that a forecast is made for. A size that was not tuned takes the factor of the last
    one of the grid."""
    last = ladder.stages[-1]
    stage = replace(last, name="held-out", settings=ladder.held_out)
    known = dict(factors or {})
    if last.tune and known:
        largest = list(known.values())[-1]
        known |= {
            settings.get(last.tune.by): known.get(settings.get(last.tune.by), largest)
            for settings in ladder.held_out
        }
    return rungs(stage, parents, known)


def untuned(stage: LadderStage, factors: Mapping[Any, float]) -> list[Any]:
    """The values of `tune.by` none of whose short runs came to a loss."""
    if stage.tune is None:
        return []
    values = dict.fromkeys(settings.get(stage.tune.by) for settings in stage.settings)
    return [value for value in values if value not in factors]


def tuning_rungs(stage: LadderStage) -> list[Rung]:
    """The short runs that choose learning rates: no evaluation, the loss is enough."""
    if stage.tune is None:
        return []
    tune = stage.tune
    first: dict[Any, Settings] = {}
    for settings in stage.settings:
        if tune.at in (None, settings.get(tune.by)):
            first.setdefault(settings.get(tune.by), settings)
    short = {"training.images": tune.images, "training.evaluate": False}
    short_runs = []
    for settings, factor in product(first.values(), tune.factors):
        tuning = replace(stage, name=f"tune-{stage.name}")
        value = settings.get(tune.by)
        rung = made(tuning, settings | short, None, {value: factor})
        short_runs.append(
            replace(rung, name=f"tune-{stage.name}/{slug({tune.by: value})}-x{factor:g}")
        )
    return short_runs


def best_factors(stage: LadderStage, losses: Mapping[str, float]) -> dict[Any, float]:
    """The factor of the lowest loss for each value of `tune.by`, given the losses of the tuning
    runs by name; runs that failed have none. What was tuned at one value is that of all."""
    lowest: dict[Any, tuple[float, float]] = {}
    for rung in tuning_rungs(stage):
        assert stage.tune is not None
        value, loss = rung.settings.get(stage.tune.by), losses.get(rung.name)
        if loss is not None and loss < lowest.get(value, (float("inf"), 1.0))[0]:
            lowest[value] = (loss, rung.factor)
    best = {value: factor for value, (_, factor) in lowest.items()}
    if stage.tune is None or stage.tune.at not in best:
        return best
    values = (settings.get(stage.tune.by) for settings in stage.settings)
    return dict.fromkeys(values, best[stage.tune.at])


def at_an_end(stage: LadderStage, factor: float) -> str:
    """What to do about a best factor beyond which none was tried; "" for one between others."""
    tried = stage.tune.factors if stage.tune else ()
    inner = sorted(tried)[1:-1]
    return "" if factor in inner else "at an end of the factors tried: widen them"
