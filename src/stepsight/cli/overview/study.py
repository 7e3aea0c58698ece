"""`stepsight study`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from stepsight import signals
from stepsight.cli.entry import at_least, given_by, output_folder
from stepsight.errors import UserError
from stepsight.scaling.plain import plain

if TYPE_CHECKING:
    from stepsight.study.graph import Study
    from stepsight.study.stages import StageJob


@dataclass(frozen=True)
class Args:
    """A study as one graph of stages: latents, pretraining, fine-tuning, experts, sweeps, laws.

    What is left is run, each stage after those that it needs, so that the same command goes on with
    a study that was stopped, or of which a stage failed. Its report.html shows how it stands.
    """

    # the graph, such as configs/paper/study.yaml
    file: Positional[Annotated[str, arg(metavar="FILE")]]
    dry_run: bool = False  # what every stage would cost, and whether it fits; starts nothing
    # a share of its length, such as 1/10; small ones are the miniature that the file describes
    scale: str = "1"
    out: str | None = None  # folder of the study; default: the file's, with the scale
    # here, a process per GPU under torchrun, or each stage as a job of a cluster
    launcher: Literal["local", "torchrun", "slurm"] = "local"
    at_once: int | None = None  # stages at a time without a GPU; default: the file's
    devices: int = 8  # with --dry-run: how many
    device_tflops: float = 989.0  # with --dry-run: of a device, such as an H100 in bfloat16
    device_memory: float = 80.0  # with --dry-run: GB of a device
    mfu: float = 0.4  # with --dry-run: the share of --device-tflops that is reached
    measured: Path | None = None  # with --dry-run: in place of --mfu, a run or a profile of one
    json: bool = False  # with --dry-run: one JSON object


def run(args: Args) -> int:
    """Exit status 1 when stages failed. Raises UserError for a study that cannot be, and Preempted
    when a signal ended it; what ran has saved."""
    at_least(1, "--at-once", args.at_once)
    from stepsight.study.graph import fraction, read_study
    from stepsight.study.stages import jobs_of

    study = read_study(args.file, fraction(args.scale, "--scale"), args.out)
    output_folder(study.out)
    study = replace(study, at_once=args.at_once or study.at_once)
    jobs = jobs_of(study, args.launcher)
    if args.dry_run:
        print(_priced(args, study, jobs))
        return 0
    from stepsight.study import running

    with signals.caught():
        progress = running.run(study, jobs, args.launcher)
    bad = [row for row in progress.rows.values() if row["status"] != "done"]
    for row in bad:
        print(f"{row['status']}: {row['name']}: {row['why']}", file=sys.stderr)
    if page := progress.draw():
        print(f"written to {page}")
    return 1 if bad else 0


def _priced(args: Args, study: Study, jobs: Sequence[StageJob]) -> str:
    """The table of --dry-run, or its JSON."""
    at_least(1, "--devices", args.devices)
    for flag in ("device_tflops", "device_memory", "mfu"):
        if not 0 < getattr(args, flag) < math.inf:
            name = flag.replace("_", "-")
            raise UserError(f"--{name} {getattr(args, flag):g}: must be above 0.")
    from stepsight.study.dry_run import Machine, lines, priced
    from stepsight.training.planning.pricing import reached

    peak, share, how = args.device_tflops * 1e12, args.mfu, "stated with --mfu, not measured"
    if args.measured is not None:
        with given_by("--measured"):
            share, how = reached(args.measured, peak)
    machine = Machine(args.devices, peak, share, how, args.device_memory)
    costs = priced(study, jobs, machine)
    if args.json:
        told = {"name": study.name, "scale": str(study.scale), "utilisation": share, "how": how}
        return json.dumps(plain(told | {"stages": [cost.to_dict() for cost in costs]}))
    return "\n".join(lines(study, costs, machine))
