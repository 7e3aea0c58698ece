"""`stepsight data`: procedural worlds and data sets, before anything is trained on them.

check    read every file: counts, pairs, ranges, damaged files
show     a grid of samples with their truth
prepare  a data set as published, into the layout its reader wants
shard    any data set, into tar files with an index
stats    the trivial predictors: what a model has to beat
ceiling  the truth through target encodings and a codec: what no model can pass
"""

from __future__ import annotations

import argparse
from types import ModuleType

from stepsight.cli.data import ceiling, check, prepare, shard, show, stats

VERBS: dict[str, ModuleType] = {
    "check": check,
    "show": show,
    "prepare": prepare,
    "shard": shard,
    "stats": stats,
    "ceiling": ceiling,
}


def run(arguments: list[str]) -> int:
    """The exit status: 0, or 1 where `check` found something."""
    door = _parser().parse_args(arguments)
    return VERBS[door.verb].run(door)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepsight data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, module in VERBS.items():
        own = verbs.add_parser(name, description=module.__doc__, allow_abbrev=False)
        module.add_flags(own)
    return parser
