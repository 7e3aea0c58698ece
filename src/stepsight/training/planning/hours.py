"""How long a run takes on devices of a stated speed, from its FLOPs: training and what follows it.

Time is FLOPs / (devices x FLOP/s x utilisation). Reading data, drawing pictures and writing files
are not counted; `stepsight doctor` says whether reading keeps up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stepsight.config import RunConfig
from stepsight.data.table import having
from stepsight.evaluation.records import picture_flops
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.tasks.base import Task
from stepsight.testtime.variants import starts_of
from stepsight.training.dense.rows import rows_per_picture
from stepsight.training.planning.codec_cost import CodecCost
from stepsight.training.planning.workload import Workload, target_pictures
from stepsight.training.spec import RunSpec

LATENTS = "latent coding"  # the part that a stage of its own may take over
CALIBRATED = 8  # members of the ensembles that uncertainty is calibrated on


@dataclass(frozen=True)
class Speed:
    """Devices, what each can do (TFLOP/s), the share of it that is reached, and who says so."""

    devices: int = 1
    tflops: float = 989.0  # dense bfloat16 of an H100
    mfu: float = 0.4
    how: str = "stated, not measured"

    def hours(self, flops: float) -> float:
        return flops / (self.devices * self.tflops * 1e12 * self.mfu) / 3600

    def __str__(self) -> str:
        many = "device" if self.devices == 1 else "devices"
        share = f"{self.mfu:.3g}" if self.mfu < 0.01 else f"{self.mfu:.0%}"
        return (
            f"{self.devices} {many} of {self.tflops:g} TFLOP/s at {share} utilisation ({self.how})"
        )


def flops_of(
    config: RunConfig,
    tasks: Mapping[str, Task],
    work: Workload,
    all_truths: float,
    spec: RunSpec | None,
) -> dict[str, float]:
    """FLOPs by phase of a run. all_truths: of training on a picture with truth for all tasks.

    spec: the run with its data, None where nobody knows them: then every picture is taken to have
    all truths, and splits whose size no setting limits count as nothing."""
    training, settings, codec = config.training, config.evaluation, CodecCost.of(config)
    found = {"training": training.images * (per_picture(config, work, spec) or all_truths)}
    coded = sum(bool(task.images) + target_pictures(task) for task in tasks.values())
    coded *= codec.encode(work.size)
    if training.latents and spec is not None:
        samples = sum(spec.drawn(name) for name in {stream.source for stream in spec.streams})
        found[LATENTS] = 2.0 * samples * coded  # plain and mirrored
    elif not training.latents:
        found["coding"] = training.images * coded
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
        images = _limited(settings.images, _held(spec, task))
        phases["final evaluation"] += images * answers.flops(usual.nfe, usual.members)
        if settings.sweep:
            images = _limited(settings.sweep_images, _held(spec, task))
            for temperature, _ in starts_of(config):
                members = max(settings.sweep_members) if temperature else 1
                each = (answers.flops(nfe, members) for nfe in settings.sweep_nfe)
                phases["sweep"] += images * sum(each)
    return {name: value for name, value in (found | phases).items() if value}


def per_picture(config: RunConfig, work: Workload, spec: RunSpec | None) -> float:
    """FLOPs of training on a picture, the mean over what is drawn; 0 where that is not known."""
    if spec is None or not work.costs:
        return 0.0
    total = sum(stream.weight for stream in spec.streams)
    rows = rows_per_picture(config)
    each = (
        stream.weight / total * picture_flops([work.costs[task] for task in stream.tasks], rows)
        for stream in spec.streams
    )
    return 3 * sum(each)


def _held(spec: RunSpec | None, task: Task) -> int | None:
    """Images that a task is scored on."""
    held = {} if spec is None else spec.held
    fitting = (having(source, frozenset({task.target_field})) for source in held.values())
    return next((len(part) for part in fitting if part is not None), None)


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
