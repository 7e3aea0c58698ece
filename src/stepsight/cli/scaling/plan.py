"""`stepsight scaling plan`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stepsight.cli.entry import exactly_one, setting
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.images import tables_beside
from stepsight.scaling.sampling.planner import WITHIN, Plan, expect, plan
from stepsight.scaling.sampling.sweeps import main_of, read_sweep
from stepsight.scaling.sampling.wording import count


@dataclass(frozen=True)
class Args:
    """What to run with a budget: checkpoint, sampler, steps and members, the metric to expect with
    its 90 % interval on as many fresh images, and the cheapest setting that is nearly as good. With
    --at, what to expect of one setting. Luck is taken out of both, by the images in the sweep's
    folder if they are there."""

    sweep: Path  # sweep.csv of evaluate.py --sweep
    task: str  # one that was swept
    budget: str | None = None  # per image: 16nfe, 50gflop or 200ms
    at: str | None = None  # one setting instead, NFE x members, such as 8x4
    metric: str | None = None  # default: the main one of the task
    within: float = 100 * WITHIN  # nearly as good: within so many %
    json: bool = False  # print JSON


def run(args: Args) -> int:
    """Print the plan, or the expectation. Raises UserError where the sweep has none."""
    asked = exactly_one(args, "budget", "at")
    cells = read_sweep(args.sweep)
    metric = args.metric or main_of(cells, args.task)
    chosen = [cell for cell in cells if (cell.task, cell.metric) == (args.task, metric)]
    tables = tables_beside(args.sweep, chosen)
    if asked == "at":
        at = setting("--at", str(args.at))
        expected = expect(cells, args.task, at, args.metric, tables=tables)[0]
        print(json.dumps(plain(asdict(expected)), indent=2) if args.json else expected)
        return 0
    budget, within = str(args.budget), args.within / 100
    planned = plan(cells, args.task, budget, args.metric, within, tables=tables)
    if args.json:
        print(json.dumps(planned.to_dict(), indent=2))
    else:
        print("\n".join(_lines(planned, args.within)))
    return 0


def _lines(planned: Plan, within: float) -> list[str]:
    cost = (
        f"{planned.total_calls} calls, {planned.gflop_per_image:.4g} GFLOP, "
        f"{planned.ms_per_image:.4g} ms per image of many, {planned.latency_ms:.4g} ms alone"
    )
    cheapest = planned.cheapest
    return [
        f"run       {planned}",
        f"chosen    the best of {count(planned.candidates, 'setting')}; {_NOISE[planned.noise]}",
        f"cost      {cost}; budget {planned.budget}, spent {planned.spent:.4g}",
        f"cheapest  within {within:g} %: {cheapest} at {count(cheapest.total_calls, 'call')}",
        f"verdict   steps and members together: {planned.verdict}",
        *(f"left out  {row}" for row in planned.left_out),
    ]


_NOISE = {
    "images": "luck as the images of the sweep have it",
    "intervals": "luck as the table's intervals have it, since no images lie beside it",
    "unknown": "luck is not known, since the table has no intervals",
}
