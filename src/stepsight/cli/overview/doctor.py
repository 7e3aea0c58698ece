"""`stepsight doctor`: can this machine train this configuration?"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepsight.cli.entry import at_least, one_of
from stepsight.cli.flags import Configured, configured


@dataclass(frozen=True)
class Args:
    """Check a machine and a configuration before a long run: minutes, on any machine.

    Learning rates, averages, gradients, memory, disk, data, kernels and tracking; and small runs of
    the same kind, by one process and by several, and killed on the way. Exit status 1 if a check
    fails.
    """

    config: tuple[str, ...] = ()  # as of train: YAML file, or a shipped one; later ones win
    only: tuple[str, ...] = ()  # checks by name; default: all
    processes: int = 2  # that the small run is shared by
    run_dir: str = "runs"  # where runs would be written: whose disk is looked at
    json: bool = False  # one JSON object

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Configured[Args]:
        return configured(cls, arguments, prog)


def run(given: Configured[Args]) -> int:
    args = given.args
    at_least(1, "--processes", args.processes)
    from stepsight.doctor.examine import CHECKS, examined
    from stepsight.doctor.findings import page
    from stepsight.doctor.patient import Patient

    for name in args.only:
        one_of("--only", name, list(CHECKS))
    with tempfile.TemporaryDirectory(prefix="stepsight-doctor-") as folder:
        say = _progress if sys.stderr.isatty() else lambda line: None
        patient = Patient(given.config, Path(folder), Path(args.run_dir), args.processes, say)
        findings = list(examined(patient, args.only))
        say("")
    failed = any(one.status == "fail" for one in findings)
    if args.json:
        rows = [one.row() for one in findings]
        print(json.dumps({"model": given.config.model.name, "ok": not failed, "checks": rows}))
    else:
        named = ", ".join(args.config) or "the default run"
        print(page(f"stepsight doctor: {named}", findings, colour=sys.stdout.isatty()))
    return int(failed)


def _progress(line: str) -> None:
    """What is being done, on one line of the terminal."""
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
