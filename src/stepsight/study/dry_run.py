"""What a study would cost, stage by stage: FLOPs, hours, memory of a device. Nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.study.graph import Study
from stepsight.study.stages import StageJob
from stepsight.training.planning.judge import elsewhere
from stepsight.training.planning.pricing import Price, price

ROW = "{:<{}}  {:<8}{:>11}{:>10}{:>9}  {}"
GB = 1e9
CODING = "latent coding"  # of a run that has a cache; a stage of its own pays for it
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


@dataclass(frozen=True)
class Machine:
    """What is paid with."""

    devices: int
    peak: float  # FLOP/s of a device
    utilisation: float  # share of it that is reached
    how: str  # that was found, in words
    room: float  # GB of a device


@dataclass(frozen=True)
class StageCost:
    """A stage with its price; None for kinds that take minutes on any machine."""

    job: StageJob
    price: Price | None

    def to_dict(self) -> dict[str, Any]:
        told = {"name": self.job.name, "kind": self.job.kind, "needs": [*self.job.needs]}
        return told | ({} if self.price is None else asdict(self.price))


def priced(study: Study, jobs: Sequence[StageJob], machine: Machine) -> list[StageCost]:
    """The price of every stage. Raises UserError for settings that no run can have."""
    return [StageCost(job, _price(study, job, jobs, machine)) for job in jobs]


def _price(study: Study, job: StageJob, jobs: Sequence[StageJob], machine: Machine) -> Price | None:
    by_name = {other.name: other for other in jobs}
    paid = {"utilisation": machine.utilisation, "devices": machine.devices, "peak": machine.peak}
    if job.config is not None:
        cached = any(by_name[name].kind == "latents" for name in job.needs)
        kind = "latents" if job.kind == "latents" else "train"
        without = (CODING,) if cached and kind == "train" else ()
        return price(job.config, kind=kind, room=machine.room, without=without, **paid)
    if job.kind != "sweep":
        return None
    options = study.stage(job.name).options
    swept = [by_name[start.stage].config for start in study.stage(job.name).starts if start.stage]
    each = [
        price(_swept(config, options), kind="sweep", room=machine.room, **paid)
        for config in swept
        if config is not None
    ]
    return _together(each) if each else None


def _swept(config: RunConfig, options: dict[str, Any]) -> RunConfig:
    """With what the flags of a sweep say. Raises UserError for what are no numbers."""
    evaluation = config.evaluation
    flags = ("nfe", "sweep_nfe"), ("members", "sweep_members"), ("data.images", "sweep_images")
    for flag, name in flags:
        if flag not in options:
            continue
        try:
            numbers = tuple(map(int, str(options[flag]).split(",")))
        except ValueError as error:
            raise UserError(f"options.{flag} {options[flag]}: write numbers: 1,2,4.") from error
        value = numbers[0] if flag == "data.images" else numbers
        evaluation = replace(evaluation, **{name: value})
    return replace(config, evaluation=evaluation)


def _together(each: Sequence[Price]) -> Price:
    """One after the other, the one that needs the most memory deciding."""
    most = max(each, key=lambda one: one.bytes_per_device)
    parts = Counter[str]()
    for one in each:
        parts.update(one.parts)
    return replace(most, parts=dict(parts), hours=sum(one.hours for one in each))


def lines(study: Study, costs: Sequence[StageCost], machine: Machine) -> Iterator[str]:
    """The table for people, and what it adds up to."""
    wide = max(len(cost.job.name) for cost in costs)
    yield f"{study.name}, scale {study.scale}: {len(costs)} stages in {study.out}"
    yield ROW.format("stage", wide, "kind", "FLOPs", "hours", "memory", "on a device")
    parts, hours, bad = Counter[str](), 0.0, list[str]()
    for cost in costs:
        found = cost.price
        if found is None:
            yield ROW.format(cost.job.name, wide, cost.job.kind, "-", "-", "-", "").rstrip()
            continue
        parts.update(found.parts)
        hours += found.hours
        bad += [] if found.fits else [cost.job.name]
        cells = flop(found.flops), f"{found.hours:.3g}", f"{found.bytes_per_device / GB:.1f} GB"
        verdict = "fits" if found.fits else found.verdict
        yield ROW.format(cost.job.name, wide, cost.job.kind, *cells, verdict)
    total = sum(parts.values())
    after = f"{hours:,.4g} hours of {machine.devices} devices, one stage after the other"
    yield f"together {flop(total)}, {after}"
    yield "of which " + ", ".join(
        f"{name} {value / total:.1%}" for name, value in parts.most_common()
    )
    peak = f"{machine.peak / 1e12:g} TFLOP/s a device"
    yield f"at {machine.utilisation:.1%} of {peak} ({machine.how})"
    yield from elsewhere(machine.peak / 1e12)
    room = f"{machine.room:g} GB"
    yield f"DO NOT FIT {room}: {', '.join(bad)}" if bad else f"every stage fits {room}"
    for stage in study.stages:
        for start in stage.starts:
            if start.folder and not Path(start.folder).exists():
                yield f"not there yet: {start.folder}, which {stage.name} starts from"
    assumed = (cost.price.assumed for cost in costs if cost.price)
    for sentence in dict.fromkeys(one for every in assumed for one in every):
        yield f"assumed: {sentence}"


def flop(value: float) -> str:
    """`50.2 EFLOP`."""
    size, unit = next((row for row in UNITS if value >= row[0]), UNITS[-1])
    return f"{value / size:.3g} {unit}"
