"""The benches by name (standard library only).

A bench is a module of `stepsight.bench.cases` with

* `PROTOCOL`: what is timed, at what sizes, and what has to be equal before it is;
* `run(setup)`, which yields `protocol.Row`s, most of them by way of `setup.timed(contest)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from stepsight.errors import UserError, suggest

CASES = "stepsight.bench.cases"
BENCHES = {
    "step": "a training step beside DiT's, fast-DiT's and diffusers'",
    "experts": "a mixture of experts beside the masked loop and a dense MLP",
    "ensemble": "sampling and merging an ensemble beside diffusers' Marigold",
    "merge": "merging maps beside diffusers' and the published rule",
    "latents": "training steps from cached latents beside coding online",
    "loaders": "reading samples beside plain PIL: files, shards, bank",
    "scenes": "rendering procedural worlds, in units of this machine",
    "startup": "--help, imports and the first training step beside bare ones",
    "checkpoint": "saving and opening beside safetensors: time and memory",
    "growth": "how time grows with tokens, members, calls and pictures",
}


def bench(name: str) -> ModuleType:
    return import_module(f"{CASES}.{name}")


def chosen(names: Sequence[str]) -> list[str]:
    """These benches in the order of the table, all if none is named. Raises UserError."""
    for name in names:
        if name not in BENCHES:
            raise UserError(f"bench '{name}' is unknown.{suggest(name, BENCHES)}")
    return [name for name in BENCHES if name in names or not names]
