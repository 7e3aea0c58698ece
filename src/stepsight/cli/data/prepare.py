"""Bring a data set as its makers publish it into the layout its reader wants. Interrupted, it
continues where it was when run again.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from typing import TYPE_CHECKING

from stepsight.cli.data.opening import at_least_one
from stepsight.cli.door import output_folder
from stepsight.errors import UserError, suggest

if TYPE_CHECKING:
    from stepsight.data.prepare.manifest import Manifest

SHOWN = 10  # of the samples that were left out


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("name", help="of the data set")
    own.add_argument("root", help="folder that holds it as published")
    own.add_argument("--out", required=True, metavar="FOLDER")
    own.add_argument("--workers", type=int, default=1, help="processes")
    own.add_argument("--keep-going", action="store_true", help="leave out what is damaged")
    own.add_argument("--json", action="store_true")


def run(door: argparse.Namespace) -> int:
    from stepsight.data.files import root_of
    from stepsight.data.prepare import TABLE

    at_least_one("--workers", door.workers)
    if door.name not in TABLE:
        raise UserError(f"'{door.name}' needs no preparation here.{suggest(door.name, TABLE)}")
    module, _, function = TABLE[door.name].partition(":")
    manifest = getattr(import_module(module), function)(
        root_of(door.root),
        output_folder(door.out),
        report=lambda line: print(line, flush=True) if not door.json else None,
        workers=door.workers,
        strict=not door.keep_going,
    )
    if door.json:
        print(json.dumps(_summary(manifest)))
    else:
        _print(manifest, door.out)
    return 0


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "data": manifest.name,
        "counts": dict(manifest.counts),
        "left_out": len(manifest.left_out),
        "damaged": dict(manifest.damaged),
        "files": len(manifest.files),
        "hash": manifest.hash,
    }


def _print(manifest: Manifest, out: str) -> None:
    counts = ", ".join(f"{split} {count}" for split, count in manifest.counts.items())
    print(f"{manifest.name}: {counts or 'no samples'}; {len(manifest.files)} files in {out}")
    for what, samples in (("left out", manifest.left_out), ("damaged", manifest.damaged)):
        if samples:
            print(f"{len(samples)} {what}:")
        for sample, why in list(samples.items())[:SHOWN]:
            print(f"  {sample}: {why}")
    print(f"hash {manifest.hash}")
