"""Whether a run would go well, before it is started: `train.py --dry-run`.

Does it fit the devices and what would make it fit; how long it takes; is the data there, and the
run that it starts from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from stepsight import checkpoint
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.tasks.table import build_tasks
from stepsight.training.objective import objective_of
from stepsight.training.planning.counts import counted
from stepsight.training.planning.dry_run import describe, lines, pictures_at_a_time
from stepsight.training.planning.hours import Speed, flops_of
from stepsight.training.planning.memory import (
    Memory,
    fitting,
    memory_of,
    micro_batches,
    planned_precision,
    widest_of,
    with_training,
)
from stepsight.training.planning.workload import Workload, workload_of
from stepsight.training.progress import Progress

GB = 1e9
NAMED = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"))
WAYS = ("none", "selective", "block")  # of recomputation, the dearest in memory first


@dataclass(frozen=True)
class MemoryPlan:
    """A way of using the devices, and what it needs of each of them."""

    sharding: str
    recompute: str
    micro_batch: int
    memory: Memory

    def row(self, room: float | None) -> dict[str, Any]:
        row: dict[str, Any] = {"sharding": self.sharding, "recompute": self.recompute}
        row |= {"micro_batch": self.micro_batch, "memory_per_device": self.memory.total}
        return row if room is None else row | {"fits": self.memory.total <= room}


def judged(
    config: RunConfig,
    speed: Speed,
    device_memory: float | None = None,
    init_from: str | None = None,
) -> dict[str, Any]:
    """The description of a run (`dry_run.describe`) with a judgement. device_memory: GB of each.

    Raises UserError for a run that cannot be described, and for an `init_from` that is none."""
    tasks, room = build_tasks(config.tasks), device_memory and device_memory * GB
    parent = None if init_from is None else checkpoint.read(init_from, lazy=True)
    work = workload_of(config, tasks)
    described = describe(config, work)
    planner = Planner(config, work, speed.devices, room)
    chosen, data = planner.chosen(), counted(config, parent)
    spec, problems = data.spec, [*data.problems]
    if spec is not None and not problems:
        try:
            objective_of(config).check(spec)
        except UserError as error:
            problems.append(str(error))
    flops = flops_of(config, tasks, work, described["flops_train_per_image"], spec)
    described |= {
        "devices": speed.devices,
        "device_memory": device_memory,
        "precision": planned_precision(config, planner.kind),
        "plan": chosen.row(room),
        "fits": None if room is None else chosen.memory.total <= room,
        "verdict": fit_words(planner, chosen),
        "memory_per_device": chosen.memory.total,
        "memory_parts": chosen.memory.parts(),
        "alternatives": [plan.row(room) for plan in planner.alternatives(chosen)],
        "hours": speed.hours(sum(flops.values())),
        "hours_by_phase": {name: speed.hours(value) for name, value in flops.items()},
        "flops_by_phase": flops,
        "assumptions": asdict(speed) | {"every_truth": spec is None},
        "assumed": [*data.assumed],
        "trains": [] if spec is None or data.problems else [*spec.words()],
        "problems": problems,
    }
    return described if parent is None else described | {"init_from": _origin(parent, config)}


class Planner:
    """The ways in which so many devices can hold a run."""

    def __init__(self, config: RunConfig, work: Workload, devices: int, room: float | None) -> None:
        self.config, self.work, self.devices, self.room = config, work, devices, room
        self.tasks = build_tasks(config.tasks)
        self.kind = "cuda" if room is not None or torch.cuda.is_available() else "cpu"

    def widest(self) -> int:
        """Bytes of the largest tensor of a forward pass of `memory.MEASURED` rows."""
        return widest_of(self.work, self.kind, planned_precision(self.config, self.kind))

    def plan(self, sharding: str, recompute: str, micro_batch: int) -> MemoryPlan:
        config = with_training(self.config, sharding=sharding, recompute=recompute)
        memory = memory_of(config, self.tasks, self.devices, micro_batch, self.kind, self.work)
        return MemoryPlan(sharding, recompute, micro_batch, memory)

    def chosen(self) -> MemoryPlan:
        """As the settings say; "auto" takes as many pictures at a time as fit."""
        training = self.config.training
        size = pictures_at_a_time(training, self.devices)
        if training.micro_batch == "auto" and self.room is not None:
            how = self.kind, self.work
            size = fitting(self.config, self.tasks, self.devices, int(self.room), *how) or 1
        return self.plan(training.sharding, training.recompute, size)

    def alternatives(self, chosen: MemoryPlan) -> list[MemoryPlan]:
        """What sharding, recomputation and smaller micro-batches would change, each at all that a
        process has of a batch, and at less."""
        whole, *less = micro_batches(self.config.training, self.devices)
        kinds = ["none", "full"] if self.devices > 1 else ["none"]
        kinds = list(dict.fromkeys([*kinds, chosen.sharding]))
        ways = [(sharding, way, whole) for sharding in kinds for way in WAYS]
        smaller = {size for size in (less[:1] + less[-1:]) if size != chosen.micro_batch}
        ways += [(chosen.sharding, chosen.recompute, size) for size in sorted(smaller)[::-1]]
        taken = (chosen.sharding, chosen.recompute, chosen.micro_batch)
        return [self.plan(*way) for way in dict.fromkeys(ways) if way != taken]


def _origin(parent: Checkpoint, config: RunConfig) -> dict[str, Any]:
    """What is known of the weights that a run would start from."""
    begun = Progress.from_weights(parent.meta)
    same = parent.config.model == config.model
    model = {"model": parent.config.model.name, "same_model": same}
    return {"path": str(parent.path), "inherited_flops": begun.inherited_flops} | model


def told(judgement: dict[str, Any]) -> list[str]:
    """The judgement for people."""
    found, plan = judgement, judgement["plan"]
    text = [*found["trains"], *lines(found), *_memory_lines(found)]
    table = [("as set", plan), *(("", row) for row in found["alternatives"])]
    text += [f"  {'':<8}{'sharding':<10}{'recompute':<11}{'micro-batch':>11}{'GB/device':>11}"]
    for name, row in table:
        fits = {True: "  fits", False: "  too large", None: ""}[row.get("fits")]
        text.append(
            f"  {name:<8}{row['sharding']:<10}{row['recompute']:<11}{row['micro_batch']:>11}"
            f"{row['memory_per_device'] / GB:>11.2f}{fits}"
        )
    flops = found["flops_by_phase"]
    phases = (
        f"{name} {hours_text(x)} ({flops_text(flops[name])})"
        for name, x in found["hours_by_phase"].items()
    )
    facts = dict(found["assumptions"])
    most = " at most, as if all pictures had all truths" if facts.pop("every_truth") else ""
    text += [
        f"hours     {hours_text(found['hours'])}{most}, on {Speed(**facts)}",
        *(f"          {sentence}" for sentence in elsewhere(facts["tflops"])),
        f"          {', '.join(phases)}",
        *(f"          {sentence}" for sentence in found["assumed"]),
    ]
    if origin := found.get("init_from"):
        same = "the same model" if origin["same_model"] else f"{origin['model']}, another model"
        inherited = origin["inherited_flops"] / 1e15
        text.append(f"start     {origin['path']}: {same}, {inherited:.3f} PFLOP inherited")
    return text + [f"problem   {problem}" for problem in found["problems"]]


def elsewhere(tflops: float) -> list[str]:
    """That hours are those of a GPU, where nobody stated a device and this machine has none."""
    if tflops != Speed.tflops or torch.cuda.is_available():
        return []
    return [
        f"those are hours of GPUs of {tflops:g} TFLOP/s, not of this machine, which has none; for "
        "its own, state --device-tflops, and --mfu or a run that was --measured here"
    ]


def _memory_lines(found: dict[str, Any]) -> list[str]:
    parts = found["memory_parts"]
    named = ", ".join(f"{name} {size(value)}" for name, value in parts.items())
    text = [f"memory    {found['verdict']}", f"          {named} (not all at the same time)"]
    if whole := parts.get("validation"):
        text.append(
            f"          validation and saving gather the whole average in float32 on every device: "
            f"{size(whole)}"
        )
    return text


def fit_words(planner: Planner, chosen: MemoryPlan) -> str:
    """What each device has to hold, whether it does, and what else would fit if it does not."""
    many = "device" if planner.devices == 1 else "devices"
    pictures = "picture" if chosen.micro_batch == 1 else "pictures"
    precision = NAMED[planned_precision(planner.config, planner.kind)]
    needed, room = chosen.memory.total, planner.room
    said = f"{size(needed)} on each of {planner.devices} {many}, "
    said += f"{chosen.micro_batch} {pictures} at a time, {precision}"
    if room is None:
        return said
    if needed <= room:
        return f"{said}: fits {room / GB:g} GB"
    for other in planner.alternatives(chosen):
        if other.memory.total <= room:
            how = f"--training.sharding {other.sharding} --training.recompute {other.recompute}"
            how += f" --training.micro_batch {other.micro_batch}"
            return f"{said}: DOES NOT FIT {room / GB:g} GB; fits with {how}"
    return f"{said}: DOES NOT FIT {room / GB:g} GB; needs more devices, or a smaller model"


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def flops_text(count: float) -> str:
    """FLOPs for people."""
    unit, name = next((u for u in UNITS if count >= u[0]), UNITS[-1])
    return f"{count / unit:.3g} {name}FLOP"


def hours_text(value: float) -> str:
    """Hours for people."""
    if value >= 1:
        return f"{value:.1f} h"
    return f"{60 * value:.1f} min" if value * 3600 >= 60 else f"{3600 * value:.2g} s"
