"""The door of `train.py`: read the configuration, then fit.

Nothing heavy is imported before the configuration is known to be right.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepsight import config as configuration
from stepsight import distributed
from stepsight.cli.door import config_files, guarded
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.models.config import VAE_PREFIX


@dataclass(frozen=True)
class Train:
    """Train a model, evaluate it, sweep its test-time compute and write report.html.

    Settings: defaults < --config files < flags. `--print-config` shows the outcome.
    """

    config: tuple[str, ...] = ()  # YAML file; may be repeated, later ones win
    run_dir: str | None = None  # where to write; default: a new numbered folder under runs/
    resume: str | None = None  # `auto`: continue the run's last checkpoint; or a checkpoint
    init_from: str | None = None  # start from the weights of another run or checkpoint
    overwrite: bool = False  # replace an existing run folder
    dry_run: bool = False  # show data, shapes, parameters, FLOPs and memory, and stop
    json: bool = False  # with --dry-run: one JSON object
    print_config: bool = False  # print the resolved configuration as YAML, and stop


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(_run, argv)


def _run(arguments: list[str]) -> int:
    config, door = configuration.load(config_files(arguments), arguments, Train, "train.py")
    if door.print_config:
        print(config.to_yaml(), end="")
        return 0
    if door.dry_run:
        from stepsight.training.dry_run import describe, lines

        found = describe(config)
        print(json.dumps(found) if door.json else "\n".join(lines(found)))
        return 0
    name = Path(door.config[-1]).stem if door.config else "default"
    if config.model.name.startswith(VAE_PREFIX):
        _train_vae(config, door, name)
        return 0
    distributed.start(config.training.processes, [_script(), *arguments])
    from stepsight.training.fit import fit

    fit(
        config,
        name=name,
        run_dir=door.run_dir,
        resume=door.resume,
        init_from=door.init_from,
        overwrite=door.overwrite,
    )
    return 0


def _train_vae(config: RunConfig, door: Train, name: str) -> None:
    """A codec is trained in one short stage, by one process."""
    if door.resume or door.init_from:
        raise UserError("a VAE is trained in one go: it takes neither --resume nor --init-from.")
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from stepsight.training.vae import fit_vae

    fit_vae(config, name=name, run_dir=door.run_dir, overwrite=door.overwrite)


def _script() -> str:
    """How the program was started, so that its copies start the same way."""
    return sys.argv[0]
