"""`stepsight steps`: the step table of a sampler."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING

from stepsight import config as configuration
from stepsight.cli.entry import given_by
from stepsight.cli.sampling import check_sampling, times
from stepsight.diffusion.config import DiffusionSettings, resampled
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.diffusion.objective import Diffusion, Step

ROW = "{:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}"


@dataclass(frozen=True)
class Args:
    """The noise levels that a sampler visits, call by call."""

    nfe: int  # model calls
    checkpoint: str | None = None  # take the settings of this run or step folder
    config: tuple[str, ...] = ()  # or of these YAML files
    sampler: str | None = None  # ddim, heun, ...; default: the settings', as for all below
    spacing: str | None = None  # of the steps
    schedule: str | None = None  # visit the noise levels of this schedule
    times: str | None = None  # visit these, such as 1.0,0.6,0.2
    eta: float | None = None  # stochasticity of ddim, 0 to 1
    strength: float = 1.0  # begin at this time
    json: bool = False  # print JSON


def run(args: Args) -> int:
    visits, settings = times(args.times), _settings(args)
    names = ("sampler", "spacing", "schedule", "eta")
    ways = {name: value for name in names if (value := getattr(args, name)) is not None}
    check_sampling(settings, {name: [value] for name, value in ways.items()}, visits)
    from stepsight.diffusion.objective import Diffusion

    diffusion = Diffusion(resampled(settings, times=visits, **ways))
    with given_by(f"--nfe {args.nfe}"):
        diffusion.check_calls(args.nfe)
    with given_by(f"--nfe {args.nfe} --strength {args.strength}"):
        steps = diffusion.steps(args.nfe, args.strength)
    end = diffusion.times(args.nfe, args.strength)[-1].item()
    if args.json:
        print(json.dumps({"steps": [_plain(step) for step in steps], "end": end}))
    else:
        print("\n".join(_lines(diffusion, steps, end)))
    return 0


def _settings(args: Args) -> DiffusionSettings:
    if args.checkpoint and args.config:
        raise UserError("give --checkpoint or --config, not both.")
    if args.checkpoint:
        from stepsight import checkpoint

        return checkpoint.read(args.checkpoint, lazy=True).config.diffusion
    return configuration.load(args.config).diffusion


def _plain(step: Step) -> dict[str, float | None]:
    """JSON has no infinity: the log SNR of pure noise is null."""
    return {key: value if math.isfinite(value) else None for key, value in asdict(step).items()}


def _lines(diffusion: Diffusion, steps: list[Step], end: float) -> list[str]:
    used = diffusion.settings
    schedule = used.schedule + "_zero_snr" * used.zero_terminal_snr
    trained = used.sampling_schedule == "trained"
    visits = "" if trained else f" at the levels of {used.sampling_schedule}"
    head = f"{used.sampler}, {used.spacing}, {schedule}{visits}, shift {used.sampling_shift:g}"
    rows = [
        ROW.format(index, *(f"{level:.4f}" for level in levels), calls)
        for index, *levels, calls in map(astuple, steps)
    ]
    calls = sum(step.calls for step in steps)
    return [
        f"{head}, eta {used.eta:g}",
        ROW.format("step", "time", "condition", "alpha", "sigma", "log SNR", "calls"),
        *rows,
        f"ends at time {end:g} after {calls} calls",
    ]
