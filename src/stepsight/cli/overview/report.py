"""`stepsight report FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Args:
    """Write the page of a run, an evaluation, a sweep, a ladder or a study anew from its files.

    A run that is still working has one too, which loads itself again until the run has ended.
    """

    folder: Positional[Path]  # its folder, e.g. runs/default-0001
    serve: int | None = None  # also show the page at this port of this machine, always up to date


def run(args: Args) -> int:
    """Raises UserError where the folder has no page, or the port cannot be had."""
    from stepsight.report.serving import PageServer, write

    if args.serve is None:
        print(f"written to {write(args.folder)}")
        return 0
    with PageServer(args.folder, args.serve) as server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0
