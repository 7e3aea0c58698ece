"""`stepsight bench`: what the work costs beside the peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from stepsight.bench.table import BENCHES, chosen
from stepsight.cli.entry import at_least, one_of


@dataclass(frozen=True)
class Args:
    """Time the work beside its peers: equal outputs first, then all sides in turns."""

    names: Positional[tuple[str, ...]] = ()  # benches (see below); default: all, or the file's
    compare: Path | None = None  # measure what this file holds anew; exit status 1 if we got slower
    out: Path | None = None  # also write what was measured to this JSON file
    device: str = "auto"  # auto (a GPU if there is one), cpu or cuda
    tiny: bool = False  # sizes that show that all of it runs, in seconds, and nothing else
    rounds: int | None = None  # timed, of each side; default: 7 or so on a CPU, 20 on a GPU
    json: bool = False  # one JSON document in place of tables

    @staticmethod
    def more_help(arguments: Sequence[str]) -> str:
        return "\n".join(
            ["", "benches:", *(f"  {n:<12} {what}" for n, what in BENCHES.items()), ""]
        )


def run(args: Args) -> int:
    at_least(1, "--rounds", args.rounds)
    one_of("--device", args.device, ("auto", "cpu", "cuda"))
    names = chosen(args.names)
    before = None
    if args.compare:
        from stepsight.bench.comparing import read

        before = read(args.compare)
        names = chosen(args.names or list(before["protocols"]))
    return _measured(args, names, before)


def _measured(args: Args, names: list[str], before: dict | None) -> int:
    import torch

    from stepsight.bench import comparing, page
    from stepsight.bench.protocol import Setup
    from stepsight.bench.running import measured
    from stepsight.errors import UserError

    there = torch.cuda.is_available()
    if args.device == "cuda" and not there:
        raise UserError("--device cuda: torch sees no GPU here.")
    device = "cuda" if there and args.device != "cpu" else "cpu"
    tiny = args.tiny or (before is not None and before["setup"]["size"] == "tiny")
    setup = Setup(device, tiny, args.rounds or 0)
    if before is not None and before["setup"]["size"] != setup.size:
        raise UserError(
            f"{args.compare} was measured at {before['setup']['size']} sizes, here they would be "
            f"those of {setup.size}. Compare on such a device (--device)."
        )
    now = measured(names, setup, _progress if sys.stderr.isatty() else lambda line: None)
    if sys.stderr.isatty():
        _progress("")
    if args.out:
        args.out.write_text(_json(now), encoding="utf-8")
    found = comparing.changes(before, now) if before else []
    notes = comparing.notes(before, now) if before else []
    if args.json and before:
        now |= {"notes": notes, "changes": [asdict(one) for one in found]}
    colour = sys.stdout.isatty()
    if args.json:
        print(_json(now), end="")
    elif before:
        print(page.compared(found, notes, colour), end="")
    else:
        print(page.measured(now, colour), end="")
    return int(comparing.slower(found))


def _json(document: dict) -> str:
    return json.dumps(document, indent=1) + "\n"


def _progress(line: str) -> None:
    """What is being timed, on one line of the terminal."""
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
