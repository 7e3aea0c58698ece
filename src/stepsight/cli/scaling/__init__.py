"""`stepsight scaling`: what training and sampling compute buy.

fit       laws in training compute, from the records of runs or any table
frontier  the settings of a sweep, or of a published table, that are worth their cost
plan      what to run with a budget of model calls, FLOPs or milliseconds
allocate  parameters or samples, training or sampling: how to spend compute
loss-to-loss  one loss or error of a model from another
ladder    train a family of models, and forecast a larger one
report    one page on a ladder: laws, forecasts against outcomes, what failed
"""

from __future__ import annotations

import argparse
from types import ModuleType

from stepsight.cli.scaling import allocate, fit, frontier, ladder, loss_to_loss, plan, report

VERBS: dict[str, ModuleType] = {
    "fit": fit,
    "frontier": frontier,
    "plan": plan,
    "ladder": ladder,
    "allocate": allocate,
    "loss-to-loss": loss_to_loss,
    "report": report,
}


def run(arguments: list[str]) -> int:
    """The exit status. `arguments` is what follows `stepsight scaling`."""
    door = _parser().parse_args(arguments)
    return VERBS[door.verb].run(door)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepsight scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, module in VERBS.items():
        own = verbs.add_parser(name, description=module.__doc__, allow_abbrev=False)
        module.add_flags(own)
    return parser
