"""`stepsight steps`: the step table of a sampler, noise level by noise level."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING

from stepsight import config as configuration
from stepsight.cli.evaluation_flags import times
from stepsight.diffusion.config import DiffusionSettings, resampled

if TYPE_CHECKING:
    from stepsight.diffusion.objective import Diffusion, Step

ROW = "{:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}"


def run(arguments: list[str]) -> int:
    door = _parser().parse_args(arguments)
    settings = resampled(
        _settings(door),
        sampler=door.sampler,
        spacing=door.spacing,
        schedule=door.schedule,
        times=times(door.times),
        eta=door.eta,
    )
    from stepsight.diffusion.objective import Diffusion

    diffusion = Diffusion(settings)
    steps = diffusion.steps(door.nfe, door.strength)
    end = diffusion.times(door.nfe, door.strength)[-1].item()
    if door.json:
        print(json.dumps({"steps": [_plain(step) for step in steps], "end": end}))
    else:
        print("\n".join(_lines(diffusion, steps, end)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepsight steps", description=__doc__, allow_abbrev=False
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", help="settings of this run or step folder")
    source.add_argument("--config", action="append", default=[], help="or of these YAML files")
    parser.add_argument("--nfe", type=int, required=True, help="model calls")
    parser.add_argument("--sampler", help="default: the settings', as for all below")
    parser.add_argument("--spacing")
    parser.add_argument("--schedule", help="visit the noise levels of this schedule")
    parser.add_argument("--times", help="visit these, such as 1.0,0.6,0.2")
    parser.add_argument("--eta", type=float)
    parser.add_argument("--strength", type=float, default=1.0, help="begin at this time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _settings(door: argparse.Namespace) -> DiffusionSettings:
    if door.checkpoint:
        from stepsight import checkpoint

        return checkpoint.read(door.checkpoint).config.diffusion
    return configuration.load(door.config, prog="stepsight steps")[0].diffusion


def _plain(step: Step) -> dict[str, float | None]:
    """JSON has no infinity: the log SNR of pure noise is null."""
    return {key: value if math.isfinite(value) else None for key, value in step._asdict().items()}


def _lines(diffusion: Diffusion, steps: list[Step], end: float) -> list[str]:
    s = diffusion.settings
    levels = s.schedule + "_zero_snr" * s.zero_terminal_snr
    visits = "" if s.sampling_schedule == "trained" else f" at the levels of {s.sampling_schedule}"
    head = f"{s.sampler}, {s.spacing}, {levels}{visits}, shift {s.sampling_shift:g}, eta {s.eta:g}"
    rows = [
        ROW.format(step.index, *(f"{value:.4f}" for value in step[1:6]), step.calls)
        for step in steps
    ]
    calls = sum(step.calls for step in steps)
    return [
        head,
        ROW.format("step", "time", "told", "alpha", "sigma", "log SNR", "calls"),
        *rows,
        f"ends at time {end:g} after {calls} calls",
    ]
