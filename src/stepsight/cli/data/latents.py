"""`stepsight data latents`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from stepsight import distributed, signals
from stepsight.cli.entry import going_on
from stepsight.cli.flags import Configured, configured


@dataclass(frozen=True)
class Args:
    """Make the latent cache of a run ahead of it, in training.latents: coded once, for all runs of
    the same data, tasks and codec.

    Takes the settings of `stepsight train`. Interrupted, it goes on where it was when run again.
    Under torchrun (`torchrun --no-python --nproc-per-node 8 stepsight data latents ...`) the
    processes share the work. What it costs: `stepsight train --dry-run`.
    """

    config: tuple[str, ...] = ()  # YAML file, or a shipped one; later ones win

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Configured[Args]:
        return configured(Args, arguments, prog)


def run(given: Configured[Args]) -> int:
    with signals.heeded():
        # Convolutions use threads well: one process, unless a launcher made more.
        distributed.start(1, [], len(os.sched_getaffinity(0)))
        from stepsight.report.console import Console
        from stepsight.training.ahead.coding import make_latents

        distributed.join()
        with Console(enabled=distributed.rank() == 0) as console:
            with going_on("data", ["latents", *given.arguments]):
                for made in make_latents(given.config, console):
                    console.header([made.words()])
        distributed.leave()
    return 0
