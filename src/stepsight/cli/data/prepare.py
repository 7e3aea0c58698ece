"""`stepsight data prepare`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from stepsight.cli.entry import at_least, output_folder
from stepsight.errors import UserError, suggest

if TYPE_CHECKING:
    from stepsight.data.prepare.manifest import Manifest

SHOWN = 10  # of the samples that were left out


@dataclass(frozen=True)
class Args:
    """Bring a data set as its makers publish it into the layout its reader wants. Interrupted, it
    continues where it was when run again."""

    name: Positional[Annotated[str, arg(metavar="NAME")]]  # of the data set
    root: Positional[Annotated[str, arg(metavar="ROOT")]]  # folder that holds it as published
    out: Path  # folder to make
    workers: int = 1  # processes
    keep_going: bool = False  # leave out what is damaged
    json: bool = False  # print a summary as JSON


def run(args: Args) -> int:
    from stepsight.data.files import root_of
    from stepsight.data.prepare import TABLE

    at_least(1, "--workers", args.workers)
    if args.name not in TABLE:
        raise UserError(f"'{args.name}' needs no preparation here.{suggest(args.name, TABLE)}")
    module, _, function = TABLE[args.name].partition(":")
    manifest = getattr(import_module(module), function)(
        root_of(args.root),
        output_folder(args.out),
        report=lambda line: print(line, flush=True) if not args.json else None,
        workers=args.workers,
        strict=not args.keep_going,
    )
    if args.json:
        print(json.dumps(_summary(manifest)))
    else:
        _print(manifest, args.out)
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


def _print(manifest: Manifest, out: Path) -> None:
    counts = ", ".join(f"{split} {count}" for split, count in manifest.counts.items())
    print(f"{manifest.name}: {counts or 'no samples'}; {len(manifest.files)} files in {out}")
    for what, samples in (("left out", manifest.left_out), ("damaged", manifest.damaged)):
        if samples:
            print(f"{len(samples)} {what}:")
        for sample, why in list(samples.items())[:SHOWN]:
            print(f"  {sample}: {why}")
    print(f"hash {manifest.hash}")
