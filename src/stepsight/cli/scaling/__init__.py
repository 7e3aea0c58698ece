"""`stepsight scaling`: what training and sampling compute buy.

fit       laws in training compute, from the records of runs or any table
frontier  the settings of a sweep, or of a published table, that are worth their cost
plan      what to run with a budget of model calls, FLOPs or milliseconds
"""

from __future__ import annotations

import argparse
from types import ModuleType

from stepsight.cli.scaling import fit, frontier, plan

VERBS: dict[str, ModuleType] = {"fit": fit, "frontier": frontier, "plan": plan}


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
