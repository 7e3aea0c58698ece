"""Write a data set as tar files in webdataset's layout, with an index, to be read as `shards`.

Interrupted, it continues where it was when run again. One folder holds one split.
"""

from __future__ import annotations

import argparse

from stepsight.cli.data.opening import (
    add_source_flags,
    at_least_none,
    at_least_one,
    open_named,
    progress,
    split_of,
)
from stepsight.cli.door import output_folder
from stepsight.errors import UserError


def add_flags(own: argparse.ArgumentParser) -> None:
    add_source_flags(own)
    own.add_argument("--out", required=True, metavar="FOLDER")
    own.add_argument("--per-shard", type=int, default=256, help="samples of a tar file")
    own.add_argument("--quality", type=int, default=None, help="JPEG, 1 to 95; default: lossless")
    own.add_argument("--workers", type=int, default=0, help="processes; default: this one")


def run(door: argparse.Namespace) -> int:
    from stepsight.data.files import root_of
    from stepsight.data.sharded.writing import write_shards

    at_least_one("--per-shard", door.per_shard)
    at_least_none("--workers", door.workers)
    if door.quality is not None and not 1 <= door.quality <= 95:
        raise UserError(f"--quality {door.quality}: from 1 to 95, or leave it out for PNG.")
    out = output_folder(door.out)
    if door.root and out.resolve().is_relative_to(root_of(door.root).resolve()):
        raise UserError(f"--out {out}: lies in the data set. Name a folder outside {door.root}.")
    index = write_shards(
        open_named(door),
        out,
        split=split_of(door),
        per_shard=door.per_shard,
        quality=door.quality,
        size=None if door.size is None else tuple(door.size),
        workers=door.workers,
        report=progress("written"),
    )
    megabytes = sum(tar.bytes for tar in index.tars) / 1e6
    print(f"{len(index)} samples in {len(index.tars)} tar files, {megabytes:.1f} MB, in {out}")
    return 0
