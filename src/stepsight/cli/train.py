"""`stepsight train`, which is train.py: read the configuration, then fit.

Nothing heavy is imported before the configuration is known to be right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepsight import distributed
from stepsight.cli.entry import guarded
from stepsight.cli.flags import Configured, configured
from stepsight.config import RunConfig
from stepsight.config.files import naming
from stepsight.models.config import VAE_PREFIX

COMMAND = ("-m", "stepsight.cli.main", "train")


@dataclass(frozen=True)
class Args:
    """Train a model, evaluate it, sweep its test-time compute and write report.html.

    Settings: defaults < --config files < flags. `--print-config` shows the outcome.
    """

    config: tuple[str, ...] = ()  # YAML file, or a shipped one such as smoke; later ones win
    run_dir: str | None = None  # where to write; default: a new numbered folder under runs/
    resume: str | None = None  # `auto`: continue the run's last checkpoint; or a checkpoint
    init_from: str | None = None  # start from the weights of another run or checkpoint
    overwrite: bool = False  # replace an existing run folder
    dry_run: bool = False  # show data, shapes, parameters, FLOPs and memory, and stop
    json: bool = False  # with --dry-run: one JSON object
    print_config: bool = False  # print the resolved configuration as YAML, and stop

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Configured[Args]:
        return configured(cls, arguments, prog)


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(lambda arguments: run(Args.parse(arguments, "train.py")), argv)


def run(given: Configured[Args]) -> int:
    args, config = given.args, given.config
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0
    with naming(config.to_dict(), given.origins):
        if args.dry_run:
            from stepsight.training.dry_run import describe, lines

            described = describe(config)
            print(json.dumps(described) if args.json else "\n".join(lines(described)))
            return 0
        _start_processes(config, given.arguments)
        from stepsight.training.fit import fit

        fit(
            config,
            name=Path(args.config[-1]).stem if args.config else "default",
            run_dir=args.run_dir,
            resume=args.resume,
            init_from=args.init_from,
            overwrite=args.overwrite,
        )
    return 0


def _start_processes(config: RunConfig, arguments: Sequence[str]) -> None:
    """A VAE's large convolutions use threads well: one process, unless more are asked for."""
    processes, threads = config.training.processes, 1
    if config.model.name.startswith(VAE_PREFIX):
        processes = processes or 1
        threads = max(len(os.sched_getaffinity(0)) // processes, 1)
    distributed.start(processes, [*COMMAND, *arguments], threads)
