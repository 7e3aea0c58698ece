"""`stepsight train`, which is train.py: read the configuration, then fit.

Nothing heavy is imported before the configuration is known to be right.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from stepsight import distributed, signals
from stepsight.cli.entry import at_least, guarded
from stepsight.cli.flags import Configured, configured, setting_of
from stepsight.config import RunConfig
from stepsight.config.files import naming
from stepsight.errors import UserError
from stepsight.execution.config import Precision
from stepsight.models.config import VAE_PREFIX
from stepsight.scaling.plain import plain

COMMAND = ("-m", "stepsight.cli.main", "train")


@dataclass(frozen=True)
class Args:
    """Train a model, evaluate it, sweep its test-time compute and write report.html.

    Settings: defaults < --config files < PATH < flags. `--print-config` shows the outcome.
    With PATH, on that data alone, for the tasks that it has truth for, a part of it held out to be
    evaluated; `--data.scenes.weight 1` mixes others in.
    """

    # your own data: a folder of pictures and truth, a list (.jsonl), or what `data look` wrote
    path: Positional[Annotated[str | None, arg(metavar="PATH")]] = None
    config: tuple[str, ...] = ()  # YAML file, or a shipped one such as smoke; later ones win
    run_dir: str | None = None  # where to write; default: a new numbered folder under runs/
    resume: str | None = None  # `auto`: continue the run's last checkpoint; or a checkpoint
    init_from: str | None = None  # start from the weights of another run or checkpoint
    # take over the steps of a run of another length, up to where this one's rates begin to decay
    branch_from: str | None = None
    overwrite: bool = False  # replace an existing run folder
    precision: Precision | None = None  # what to compute in; default: training.precision
    profile: int | None = None  # measure so many steps, write profile/ into the run, and stop
    dry_run: bool = False  # show data, shapes, FLOPs, memory and hours, judge them, and stop
    json: bool = False  # with --dry-run: one JSON object
    device_memory: float | None = None  # with --dry-run: GB of a device, to say whether it fits
    devices: int | None = None  # with --dry-run: how many; default: training.processes
    device_tflops: float = 989.0  # with --dry-run: of a device, such as an H100 in bfloat16
    mfu: float = 0.4  # with --dry-run: the share of that which is reached
    measured: str | None = None  # with --dry-run: a run, or its profile, that says what is reached
    print_config: bool = False  # print the resolved configuration as YAML, and stop

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Configured[Args]:
        given = configured(Args, arguments, prog)
        if given.args.path is not None:
            given = _on_own_data(given, given.args.path, prog)
        if given.args.precision is None:
            return given
        if "training.precision" in map(setting_of, arguments):
            raise UserError("--precision is short for --training.precision: give one of them.")
        training = replace(given.config.training, precision=given.args.precision)
        return replace(given, config=replace(given.config, training=training))


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(lambda arguments: run(Args.parse(arguments, "train.py")), argv)


def run(given: Configured[Args]) -> int:
    args, config = given.args, given.config
    _check_profile(args)
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0
    with naming(config.to_dict(), given.origins):
        if args.dry_run:
            print(_judged(args, config))
            return 0
        with signals.heeded():
            _start_processes(config, given.arguments)
            from stepsight.training.fit import fit

            fit(
                config,
                name=_name(args),
                run_dir=args.run_dir,
                resume=args.resume,
                init_from=args.init_from,
                branch_from=args.branch_from,
                overwrite=args.overwrite,
                profile=args.profile,
            )
    return 0


def _on_own_data(given: Configured[Args], path: str, prog: str) -> Configured[Args]:
    """The same with the settings that a path of data stands for, which go before those of files."""
    from stepsight.cli.data.own import own_data, replaced

    runs = Path(given.args.run_dir).parent if given.args.run_dir else Path("runs")
    own = own_data(Path(path), given.config, given.origins, runs)
    arguments = given.arguments
    if own.listed != Path(path):  # looked at once, not by each process
        arguments = replaced(arguments, path, own.listed)
    return configured(Args, arguments, prog, [own.layer])


def _name(args: Args) -> str:
    """What a run is called that is not told where to write."""
    if args.config:
        return Path(args.config[-1]).stem
    return re.sub(r"[^\w.-]+", "-", Path(args.path).resolve().stem) if args.path else "default"


def _check_profile(args: Args) -> None:
    at_least(1, "--profile", args.profile)
    for flag in ("--dry-run", "--print-config") if args.profile else ():
        if getattr(args, flag[2:].replace("-", "_")):
            raise UserError(f"--profile measures a run, {flag} starts none: leave one of them out.")


def _judged(args: Args, config: RunConfig) -> str:
    at_least(1, "--devices", args.devices)
    for flag, value in (("--device-memory", args.device_memory), ("--mfu", args.mfu),
                        ("--device-tflops", args.device_tflops)):  # fmt: skip
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{flag} {value:g}: must be above 0.")
    from stepsight.training.planning.hours import Speed
    from stepsight.training.planning.judge import judged, told
    from stepsight.training.planning.pricing import reached

    devices = args.devices or max(config.training.processes, 1)
    speed = Speed(devices, args.device_tflops, args.mfu)
    if args.measured is not None:
        share, how = reached(Path(args.measured), args.device_tflops * 1e12)
        speed = replace(speed, mfu=share, how=how)
    found = judged(config, speed, args.device_memory, args.init_from)
    return json.dumps(plain(found)) if args.json else "\n".join(told(found))


def _start_processes(config: RunConfig, arguments: Sequence[str]) -> None:
    """A VAE's large convolutions use threads well: one process, unless more are asked for."""
    processes, threads = config.training.processes, 1
    if config.model.name.startswith(VAE_PREFIX):
        processes = processes or 1
        threads = max(len(os.sched_getaffinity(0)) // processes, 1)
    distributed.start(processes, [*COMMAND, *arguments], threads)
