"""How long a run takes on devices of a stated speed, from its FLOPs: training and what follows it.

Time is FLOPs / (devices x FLOP/s x utilisation). Reading data, drawing pictures and writing files
are not counted; `stepsight doctor` says whether reading keeps up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepsight.config import RunConfig
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.sources import open_sources
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.tasks.base import Task
from stepsight.testtime.variants import starts_of
from stepsight.training.codec_cost import CodecCost
from stepsight.training.workload import Workload, target_pictures

CALIBRATED = 8  # members of the ensembles that uncertainty is calibrated on


@dataclass(frozen=True)
class Speed:
    """Devices, what each can do (TFLOP/s) and the share of it that is reached."""

    devices: int = 1
    tflops: float = 989.0  # dense bfloat16 of an H100
    mfu: float = 0.4

    def hours(self, flops: float) -> float:
        return flops / (self.devices * self.tflops * 1e12 * self.mfu) / 3600

    def __str__(self) -> str:
        many = "device" if self.devices == 1 else "devices"
        return f"{self.devices} {many} of {self.tflops:g} TFLOP/s at {self.mfu:.0%} utilisation"


@dataclass
class Data:
    """What the sources of a run hold, as far as they can be opened."""

    train: dict[str, Source] = field(default_factory=dict)
    held: dict[str, Source] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config: RunConfig, tasks: Mapping[str, Task]) -> Data:
        found, wanted = cls(), frozenset(task.target_field for task in tasks.values())
        try:
            found.train = open_sources(config, wanted, "train")
            found.held = open_sources(config, wanted, "eval")
        except UserError as error:
            found.problems.append(str(error))
        return found

    def held_for(self, task: Task) -> int | None:
        """Images that a task is scored on; None where that is not known."""
        fitting = [x for x in self.held.values() if task.target_field in x.quantities]
        return len(fitting[0]) if fitting else None


def flops_of(
    config: RunConfig, tasks: Mapping[str, Task], work: Workload, per_image: float, data: Data
) -> dict[str, float]:
    """FLOPs by phase of a run. per_image: of training on a picture. Splits whose size is not known
    and not limited by the settings count as nothing."""
    training, settings, codec = config.training, config.evaluation, CodecCost.of(config)
    found = {"training": per_image * training.images}
    coded = sum(bool(task.images) + target_pictures(task) for task in tasks.values())
    coded *= codec.encode(work.size)
    if training.latents:
        samples = sum(min(len(source), training.images) for source in data.train.values())
        found["latent coding"] = 2.0 * samples * coded  # plain and mirrored
    elif coded:
        found["latent coding"] = coded * training.images
    if not work.costs:
        return {name: value for name, value in found.items() if value}  # a VAE is not scored
    usual = SamplingSetting.of(settings, None)
    validated = min(1, training.first_validation) + 1
    validated += training.images // training.validate_every if training.validate_every else 0
    phases = dict.fromkeys(("validation", "tuning", "final evaluation", "sweep"), 0.0)
    for name, task in tasks.items():
        answers = _Answers(task, work, codec, name)
        phases["validation"] += (
            validated * training.validation_images * answers.flops(usual.nfe, usual.members)
        )
        if not training.evaluate:
            continue
        tuned = sum(nfe for nfe in settings.sweep_nfe) + settings.nfe * CALIBRATED
        phases["tuning"] += settings.tuning_images * answers.flops(tuned, 1)
        images = _limited(settings.images, data.held_for(task))
        phases["final evaluation"] += images * answers.flops(usual.nfe, usual.members)
        if settings.sweep:
            images = _limited(settings.sweep_images, data.held_for(task))
            for temperature, _ in starts_of(config):
                members = max(settings.sweep_members) if temperature else 1
                each = (answers.flops(nfe, members) for nfe in settings.sweep_nfe)
                phases["sweep"] += images * sum(each)
    return {name: value for name, value in (found | phases).items() if value}


def _limited(asked: int, there: int | None) -> int:
    return asked if there is None else min(asked or there, there)


@dataclass(frozen=True)
class _Answers:
    """What an answer of a task costs."""

    task: Task
    work: Workload
    codec: CodecCost
    name: str

    def flops(self, calls: int, members: int) -> float:
        cost, size = self.work.costs[self.name], self.work.size
        pictures = target_pictures(self.task)
        ends = self.task.images * self.codec.encode(size)
        ends += members * pictures * self.codec.decode(size)
        return 2 * cost.encode + calls * members * cost.call + ends
