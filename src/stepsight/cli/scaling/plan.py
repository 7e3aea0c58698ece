"""What to run with a budget: checkpoint, sampler, steps and members, the metric to expect with its
90 % interval on as many fresh images, and the cheapest setting that is nearly as good. With --at,
what to expect of one setting."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path

from stepsight.errors import UserError
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.interpolation import Setting
from stepsight.scaling.sampling.planner import WITHIN, Plan, expect, plan
from stepsight.scaling.sampling.sweeps import read_sweep
from stepsight.scaling.sampling.wording import count


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("--sweep", required=True, type=Path, help="sweep.csv of evaluate.py --sweep")
    own.add_argument("--task", required=True)
    asked = own.add_mutually_exclusive_group(required=True)
    asked.add_argument("--budget", help="an image: 16nfe, 50gflop or 200ms")
    asked.add_argument("--at", metavar="NFExMEMBERS", help="one setting instead, such as 8x4")
    own.add_argument("--metric", help="by default the main one of the task")
    own.add_argument(
        "--within", type=float, default=100 * WITHIN, help="nearly as good: within so many %%"
    )
    own.add_argument("--json", action="store_true", help="print JSON")


def run(door: argparse.Namespace) -> int:
    """Print the plan, or the expectation. Raises UserError where the sweep does not tell."""
    cells = read_sweep(door.sweep)
    if door.at:
        found = expect(cells, door.task, _setting(door.at), door.metric)[0]
        print(json.dumps(plain(asdict(found)), indent=2) if door.json else found)
        return 0
    planned = plan(cells, door.task, door.budget, door.metric, door.within / 100)
    if door.json:
        print(json.dumps(planned.to_dict(), indent=2))
    else:
        print("\n".join(_lines(planned, door.within)))
    return 0


def _setting(text: str) -> Setting:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise UserError(f"--at {text}: write NFE x members without spaces, such as 8x4.")
    return int(found[1]), int(found[2])


def _lines(planned: Plan, within: float) -> list[str]:
    cost = (
        f"{planned.total_calls} calls, {planned.gflop_per_image:.4g} GFLOP, "
        f"{planned.ms_per_image:.4g} ms an image"
    )
    cheapest, lost = planned.cheapest, planned.unmeasured
    told = [
        f"run       {planned}",
        f"cost      {cost}; budget {planned.budget}, spent {planned.spent:.4g}",
        f"cheapest  within {within:g} %: {cheapest} at {cheapest.total_calls} calls",
        f"verdict   steps and members together: {planned.verdict}",
    ]
    return told + (
        [f"left out  {count(lost, 'setting')} of the sweep without a number"] if lost else []
    )
