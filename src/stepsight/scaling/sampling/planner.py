"""What to run with a budget: the setting of a sweep that promises the best answer.

Candidates are all settings that the sweep speaks of, over samplers, sizes, merges and checkpoints:
those measured, and the whole numbers between them. Nothing is promised beyond the largest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from stepsight.errors import UserError
from stepsight.measures import measure
from stepsight.scaling.fitting.quality import Verdict
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.frontier import COSTS, UNPRICED
from stepsight.scaling.sampling.interpolation import Setting
from stepsight.scaling.sampling.response_surface import Choice, ResponseSurface
from stepsight.scaling.sampling.sweeps import Cell, main_of, select, unmeasured

WITHIN = 0.02
UNITS = {"nfe": COSTS["calls"], "gflop": COSTS["gflop"], "ms": COSTS["latency"]}


class Budget(NamedTuple):
    """So much of one cost, an image."""

    amount: float
    unit: str  # nfe (model calls of all members), gflop, or ms of one picture alone

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`16nfe`, `50gflop` or `200ms`.

        Raises:
            UserError: it is none of these, or not positive.
        """
        match = re.fullmatch(r"\s*(\d*\.?\d+)\s*([a-z]+)\s*", text.lower())
        if not match or match[2] not in UNITS or float(match[1]) <= 0:
            raise UserError(
                f"budget '{text}': write a positive number and a unit, such as 16nfe (model calls "
                "of all members), 50gflop or 200ms, for one image alone."
            )
        return cls(float(match[1]), match[2])

    def cost(self, choice: Choice) -> float:
        """What a choice costs, in the unit of the budget."""
        return float(getattr(choice, UNITS[self.unit]))


@dataclass(frozen=True, kw_only=True)
class Plan(Choice):
    """The best choice within a budget, and the cheapest that is nearly as good."""

    cheapest: Choice
    budget: str
    spent: float  # in the unit of the budget
    verdict: Verdict  # on both axes, where all else is as chosen
    unmeasured: int  # settings of the sweep without a number, which nothing is planned with

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan becomes None."""
        return plain(asdict(self))


def plan(
    cells: Sequence[Cell],
    task: str,
    budget: str | Budget,
    metric: str | None = None,
    within: float = WITHIN,
) -> Plan:
    """The setting that promises the best `metric` within the budget, an image.

    metric: the main one of the task by default. `cheapest` is the cheapest setting whose
    expectation is within that share of the best one's.

    Raises:
        UserError: the budget buys nothing (names the cheapest setting), is no budget, or the sweep
            lacks the task, the metric, or the cost.
    """
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    surfaces = _surfaces(cells, task, metric)
    offers = [(choice, surface) for surface in surfaces for choice in surface.choices()]
    priced = [offer for offer in offers if math.isfinite(budget.cost(offer[0]))]
    if not priced:
        raise UserError(f"The sweep holds no {UNITS[budget.unit]} of {task}. {UNPRICED}")
    affordable = [offer for offer in priced if budget.cost(offer[0]) <= budget.amount]
    if not affordable:
        raise UserError(_too_small(budget, [choice for choice, _ in priced]))
    best, surface = min(affordable, key=lambda offer: _rank(offer[0], budget))
    enough = [choice for choice, _ in affordable if _nearly(choice, best, within)]
    cheapest = min(enough, key=lambda choice: (budget.cost(choice), _rank(choice, budget)))
    return Plan(
        **asdict(best),
        cheapest=cheapest,
        budget=str(budget),
        spent=budget.cost(best),
        verdict=surface.verdict,
        unmeasured=unmeasured(cells, task, best.metric),
    )


def expect(
    cells: Sequence[Cell], task: str, at: Setting, metric: str | None = None
) -> list[Choice]:
    """What to expect at (NFE, members) on fresh images, over all that the sweep varied besides, the
    best first.

    Raises:
        UserError: the sweep does not reach there, or lacks the task or the metric.
    """
    surfaces = _surfaces(cells, task, metric)
    choices = [choice for surface in surfaces if (choice := surface.choice(at))]
    if not choices:
        raise UserError(
            f"The sweep of {task} says nothing of NFE {at[0]} x {at[1]} members: it lies outside "
            "of what was measured, or too little was measured to interpolate."
        )
    return sorted(choices, key=_error)


def _surfaces(cells: Sequence[Cell], task: str, metric: str | None) -> list[ResponseSurface]:
    chosen = select(cells, task, metric or main_of(cells, task))
    return [ResponseSurface(of_family) for of_family in by_family(chosen).values()]


def _error(choice: Choice) -> float:
    return -choice.expected if measure(choice.metric).higher_is_better else choice.expected


def _rank(choice: Choice, budget: Budget) -> tuple[float, float, bool]:
    """Of equal promises the cheaper wins, then the one that was measured."""
    return _error(choice), budget.cost(choice), not choice.measured


def _nearly(choice: Choice, best: Choice, within: float) -> bool:
    return _error(choice) <= _error(best) + within * abs(best.expected)


def _too_small(budget: Budget, priced: Sequence[Choice]) -> str:
    least = min(priced, key=budget.cost)
    return (
        f"A budget of {budget} buys nothing: the cheapest setting of the sweep costs "
        f"{budget.cost(least):.4g}{budget.unit} ({least.sampler}, NFE {least.nfe} x "
        f"{least.members} members)."
    )
