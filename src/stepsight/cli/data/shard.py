"""`stepsight data shard`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stepsight.cli.data.text import progress
from stepsight.cli.entry import at_least, output_folder
from stepsight.cli.sources import SourceArgs
from stepsight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Args(SourceArgs):
    """Write a data set as tar files in webdataset's layout, with an index, to be read as `shards`.

    Interrupted, it continues where it was when run again. One folder holds one split. Samples keep
    the truth that they have, and what `data check` would say of it is printed at the end.
    """

    out: Path  # folder to make
    per_shard: int = 256  # samples per tar file
    quality: int | None = None  # of JPEG, 1 to 95; default: lossless
    workers: int = 0  # processes; default: this one
    on_bad: Literal["stop", "skip"] = "stop"  # at a sample that cannot be read
    bad_cap: float = 0.01  # share of the samples that may be skipped


def run(args: Args) -> int:
    from stepsight.data.bad import QUARANTINE
    from stepsight.data.files import root_of
    from stepsight.data.sharded.writing import write_shards
    from stepsight.data.table import notes_of

    at_least(1, "--per-shard", args.per_shard)
    at_least(0, "--workers", args.workers)
    if args.quality is not None and not 1 <= args.quality <= 95:
        raise UserError(f"--quality {args.quality}: from 1 to 95, or leave it out for PNG.")
    out = output_folder(args.out)
    if args.root and out.resolve().is_relative_to(root_of(args.root).resolve()):
        raise UserError(f"--out {out}: lies in the data set. Name a folder outside {args.root}.")
    source = args.open()
    index = write_shards(
        source,
        out,
        split=args.chosen_split,
        per_shard=args.per_shard,
        quality=args.quality,
        size=args.size,
        workers=args.workers,
        on_bad=args.on_bad,
        bad_cap=args.bad_cap,
        report=progress("written"),
    )
    megabytes = sum(tar.bytes for tar in index.tars) / 1e6
    print(f"{len(index)} samples in {len(index.tars)} tar files, {megabytes:.1f} MB, in {out}")
    for note in notes_of(source):
        print(f"  {note}")
    for said, grave in index.about.get("remarks", ()):
        print(f"  {'FINDING' if grave else 'REMARK '}     {said}")
    if skipped := index.about.get("skipped", 0):
        print(f"{skipped} samples that cannot be read are left out: see {out / QUARANTINE}")
    return 0
