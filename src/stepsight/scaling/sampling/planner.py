"""What to run with a budget: the setting of a sweep that promises the best answer.

Candidates are all settings that the sweep speaks of, over samplers, sizes, merges and checkpoints:
those measured, and the whole numbers between them. Nothing is promised beyond the largest.

The best of many is chosen for its luck as well. So measured settings are drawn towards the others
first, and the expectation of the one chosen is then moved by how much too good a winner seems
(`shrinkage` has both).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from stepsight.errors import UserError
from stepsight.measures import measure, number
from stepsight.scaling.fitting.quality import Verdict
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.frontier import COSTS, UNPRICED
from stepsight.scaling.sampling.interpolation import Setting
from stepsight.scaling.sampling.paired import FamilySetting, MetricTable
from stepsight.scaling.sampling.response_surface import Choice, ResponseSurface
from stepsight.scaling.sampling.shrinkage import Array, image_covariance, optimism, root
from stepsight.scaling.sampling.sweeps import Cell, left_out, main_of, select

WITHIN = 0.02
TOLD = 5e-4  # of an expectation: smaller corrections are made and not told
Noise = Literal["images", "intervals", "unknown"]
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
    left_out: list[str]  # rows of the sweep without a value or a cost, which take no part
    candidates: int  # settings that the budget buys
    optimism: float  # how much worse the expectation was made for having been chosen among them
    noise: Noise  # where it is known from how far luck goes

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan becomes None."""
        return plain(asdict(self))


def plan(
    cells: Sequence[Cell],
    task: str,
    budget: str | Budget,
    metric: str | None = None,
    within: float = WITHIN,
    *,
    tables: Sequence[MetricTable] = (),
) -> Plan:
    """The setting that promises the best `metric` within the budget, an image.

    metric: the main one of the task by default. `cheapest` is the cheapest setting whose
    expectation is within that share of the best one's. tables: the images behind the cells
    (`images.tables_beside`), which tell what noise the settings share.

    Raises:
        UserError: the budget buys nothing (names the cheapest setting), is no budget, or the sweep
            lacks the task, the metric, or the cost.
    """
    return plans(cells, task, [budget], metric, within, tables=tables)[0]


def plans(
    cells: Sequence[Cell],
    task: str,
    budgets: Sequence[str | Budget],
    metric: str | None = None,
    within: float = WITHIN,
    *,
    tables: Sequence[MetricTable] = (),
) -> list[Plan]:
    """`plan` for several budgets, in little more time than for one. Raises as it does."""
    land, found = _Land(cells, task, metric, tables), []
    for text in budgets:
        budget = Budget.parse(text) if isinstance(text, str) else text
        affordable = _affordable(land.offers, budget, task)
        best, whose = affordable[0]
        enough = [choice for choice, _ in affordable if _nearly(choice, best, within)]
        cheapest = min(enough, key=lambda choice: (budget.cost(choice), _rank(choice, budget)))
        luck = land.optimism(affordable)
        chosen = _worse(best, luck)
        found.append(
            Plan(
                **asdict(chosen),
                cheapest=chosen if cheapest is best else cheapest,
                budget=str(budget),
                spent=budget.cost(best),
                verdict=land.surfaces[whose].verdict,
                left_out=left_out(cells, task, best.metric, UNITS[budget.unit]),
                candidates=len(affordable),
                optimism=luck,
                noise=land.noise,
            )
        )
    return found


def expect(
    cells: Sequence[Cell],
    task: str,
    at: Setting,
    metric: str | None = None,
    *,
    tables: Sequence[MetricTable] = (),
) -> list[Choice]:
    """What to expect at (NFE, members) on fresh images, over all that the sweep varied besides, the
    best first. `tables` as for `plan`.

    Raises:
        UserError: the sweep does not reach there, or lacks the task or the metric.
    """
    land = _Land(cells, task, metric, tables)
    choices = [choice for surface in land.surfaces if (choice := surface.choice(at))]
    if not choices:
        raise UserError(
            f"The sweep of {task} says nothing of NFE {at[0]} x {at[1]} members: it lies outside "
            "of what was measured, or too little was measured to interpolate."
        )
    return sorted(choices, key=_error)


def _affordable(offers: Sequence[_Offer], budget: Budget, task: str) -> list[_Offer]:
    """What the budget buys, the best first. Raises UserError where that is nothing."""
    priced = [offer for offer in offers if math.isfinite(budget.cost(offer.choice))]
    if not priced:
        raise UserError(f"The sweep holds no {UNITS[budget.unit]} of {task}. {UNPRICED}")
    affordable = [offer for offer in priced if budget.cost(offer.choice) <= budget.amount]
    if not affordable:
        raise UserError(_too_small(budget, [offer.choice for offer in priced]))
    return sorted(affordable, key=lambda offer: _rank(offer.choice, budget))


class _Offer(NamedTuple):
    """A choice, and which surface makes it."""

    choice: Choice
    surface: int


class _Land:
    """One metric of a task over all that a sweep varied."""

    def __init__(
        self, cells: Sequence[Cell], task: str, metric: str | None, tables: Sequence[MetricTable]
    ) -> None:
        chosen = select(cells, task, metric or main_of(cells, task))
        families = [*by_family(chosen).values()]
        ordered = [cell for family in families for cell in family]
        places = [FamilySetting(cell.family, *cell.setting) for cell in ordered]
        own = [t for t in tables if (t.task, t.metric) == (task, chosen[0].metric)]
        self._covariance = image_covariance(own, places)
        ends = np.cumsum([len(family) for family in families])
        self._blocks = [slice(end - len(family), end) for end, family in zip(ends, families)]
        self.surfaces = [
            ResponseSurface(of, None if self._covariance is None else self._covariance[at, at])
            for of, at in zip(families, self._blocks)
        ]

    @cached_property
    def offers(self) -> list[_Offer]:
        """All that is promised."""
        whole = enumerate(self.surfaces)
        return [_Offer(choice, i) for i, surface in whole for choice in surface.choices()]

    @property
    def noise(self) -> Noise:
        """What is known of the noise of the cells."""
        if self._covariance is not None:
            return "images"
        known = any(math.isfinite(cell.lo) for surface in self.surfaces for cell in surface.cells)
        return "intervals" if known else "unknown"

    def optimism(self, offers: Sequence[_Offer]) -> float:
        """How much too good the best of some offers seems, in units of the metric."""
        loads = np.zeros((len(offers), self._blocks[-1].stop))
        for whose in {whose for _, whose in offers}:
            rows = [row for row, offer in enumerate(offers) if offer[1] == whose]
            at = [(offers[row].choice.nfe, offers[row].choice.members) for row in rows]
            loads[rows, self._blocks[whose]] = self.surfaces[whose].loads(at)
        values = np.array([_error(choice) for choice, _ in offers])
        return optimism(values, loads @ self._factor)

    @property
    def _factor(self) -> Array:
        """Of the covariance of the noise, "c c"."""
        if self._covariance is not None:
            return root(self._covariance)
        return np.diag(np.sqrt(np.concatenate([surface.luck for surface in self.surfaces])))


def _worse(choice: Choice, by: float) -> Choice:
    """A choice whose promise is `by` less good, its interval with it."""
    kind = measure(choice.metric)
    moved = {
        end: kind.value(kind.error(getattr(choice, end)) + by) for end in ("expected", "lo", "hi")
    }
    said = (
        f"; {number(by)} worse for having been chosen" if by > TOLD * abs(choice.expected) else ""
    )
    return replace(choice, **moved, basis=choice.basis + said)


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
