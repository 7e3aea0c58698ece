"""What a file says of its answer: task, unit, settings, what goes in and what comes out."""

from __future__ import annotations

from typing import Any

from stepsight.exporting.graph import SEED, AnswerGraph
from stepsight.metrics.protocol import default_for

INPUTS = {
    "image": "float32 1 3 h w, RGB in [0, 1]",
    "second": "float32 1 3 h w, RGB in [0, 1], the next frame",
    "mask": "bool 1 1 h w, the visible part of the object",
    "noise": "float32 d r c h w, standard normal: draw, member, channels and cells",
}


def described(answer: AnswerGraph) -> dict[str, Any]:
    """Plain values, for JSON. protocol: how the run's scores of this task are made of such answers,
    by default; calibration: what the members' spread is multiplied by, already."""
    pipeline, task, setting = answer.pipeline, answer.task, answer.asked.setting
    used, size = pipeline.diffusion.settings, answer.asked.size
    grid = answer.traced
    return {
        "task": task.name,
        "unit": task.unit,
        "protocol": pipeline.profile.mark(default_for(task.name).id) if task.protocols else None,
        "inputs": {name: INPUTS[name] for name in answer.example(grid)},
        "outputs": ["values", "uncertainty"][: 1 + (setting.members > 1)],
        "pictures": [*size] if size else f"any multiples of {answer.stride}, seen as they are",
        "seen": [*pipeline.working_size(task.name, size)] if size else "as they are",
        "nfe": setting.nfe,
        "members": setting.members,
        "sampler": used.sampler,
        "merge": getattr(task, "merge_by", None) if setting.members > 1 else None,
        "starts": starts(answer),
        "views": used.views if setting.nfe > 1 else "none",
        "calibration": pipeline.calibration.get(task.name, 1.0),
        "profile": pipeline.profile.id,
        "weights": pipeline.name,
        "precision": "float32",
    }


def starts(answer: AnswerGraph) -> str:
    """Where the members start from."""
    if not answer.drawn["sample"]:
        return "zeros"
    temperature = f"{answer.pipeline.diffusion.settings.temperature:g}"
    kind = "an input" if answer.takes_noise else f"a constant of seed {SEED}"
    return f"noise, {kind}, times {temperature}"
