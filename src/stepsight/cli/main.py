"""`stepsight <command>`: the doors that are not train.py or evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from stepsight.cli.door import guarded
from stepsight.errors import UserError, suggest

COMMANDS = {
    "predict": "depth, flow, masks, classes or normals of your own pictures",
    "data": "check, look at, prepare and shard data sets; trivial baselines and codec ceilings",
    "steps": "the noise levels that a sampler visits, call by call",
    "scaling": "what training and sampling compute buy: laws, frontiers, plans",
    "convert": "read published weights, make experts of a model's MLPs, write published layouts",
    "protocols": "how predictions become numbers: names, ids, formulas, sources",
    "compare": "costs and scores of several runs, side by side",
    "report": "write a run's report.html anew",
}


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(_run, argv)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: stepsight <command> ...\n")
        print("\n".join(f"  {name:<10}{about}" for name, about in COMMANDS.items()))
        print("\nTraining and evaluation: train.py and evaluate.py.")
        return 0 if arguments else 2
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(f"command '{command}' is unknown.{suggest(command, COMMANDS)}")
    return import_module(f"stepsight.cli.{command}").run(rest)
