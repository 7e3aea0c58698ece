"""One scale a task that makes a stated uncertainty as wide as the errors are.

Members of an ensemble agree too much: the central intervals of a normal distribution with their
mean and standard deviation s cover less of the truth than they say. So s is multiplied by one
number a, fitted on scenes that nobody is scored on, such that mean +- z a s covers exactly 90 % of
the scored pixels there (z = 1.645), where every image weighs the same. Intervals are compared with
the truth as `evaluation.spread` compares them: in metres after the protocol's alignment, in pixels.
Masks and classes state probabilities, which need no scale.

A scale makes widths right on average, for as many calls and members as it was fitted with. Whether
the spread also tells where the errors are is another question (`evaluation.calibration_words`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.evaluation.evaluator import all_gathered, rank, world
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.spread import LEVEL, Case, case_of
from stepsight.evaluation.views import cropped, view_of
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.uncertainty import half_width, moments
from stepsight.pipeline.dense import DensePipeline

MOST = 2**16  # distances kept of an image; of more than these every n-th by size


@torch.inference_mode()
def fit_calibration(
    pipeline: DensePipeline,
    source: Source,
    task: str,
    indices: Sequence[int],
    rule: Protocol,
    *,
    nfe: int,
    members: int,
    seed: int = 0,
    rows: int = 64,
) -> dict[str, Any] | None:
    """The record of a task's scale, fitted on `indices` of `source` as `rule` scores them; None for
    a task whose uncertainty is no interval.

    Members (at least 2) start from noise of temperature 1, and are sampled in all else as the
    pipeline is set up. "scale" is None where none exists, and "reason" says why. All processes
    take part, and have the same record.
    """
    assert members > 1, "one member has no spread"
    own = pipeline.sampling(temperature=1.0)
    sampler = own.diffusion.settings.sampler
    model = Model(own, task, [nfe], [members], sampler, seed, rows, keep=True)
    own = [_distances(case) for case in _cases(model, source, rule, indices[rank() :: world()])]
    every = all_gathered(own)
    if not every:
        return None
    distances = [found for found in every if len(found)]
    scale = scale_of(distances)
    raw = [float((one <= half_width(LEVEL)).double().mean()) for one in distances]
    return {
        "scale": scale,
        "nfe": nfe,
        "members": members,
        "temperature": 1.0,
        "sampler": sampler,
        "level": LEVEL,
        "coverage_raw": sum(raw) / len(raw) if raw else None,
        "images": len(distances),
        "protocol": rule.id,
    } | ({} if scale is not None else {"reason": _reason(distances)})


def scale_of(distances: Sequence[Tensor], level: float = LEVEL) -> float | None:
    """The least a for which |truth - mean| / s <= z a for `level` of the pixels; `distances`, an
    "n" for each image, are these quotients. None where that takes an infinite one, or there is no
    pixel."""
    if not distances:
        return None
    weights = torch.cat([torch.full_like(one, 1 / len(one)) for one in distances])
    found, order = torch.cat(list(distances)).sort()
    reached = weights[order].cumsum(0) / len(distances)
    place = int(torch.searchsorted(reached, level * (1 - 1e-9)).clamp(max=len(found) - 1))
    scale = float(found[place]) / half_width(level)
    return scale if math.isfinite(scale) and scale > 0 else None


def _reason(distances: Sequence[Tensor]) -> str:
    if not distances:
        return "no pixel is scored"
    equal = sum(float(one.isinf().double().mean()) for one in distances) / len(distances)
    if equal > 1 - LEVEL:
        return f"all members are equal, and not right, in {100 * equal:.0f} % of the pixels"
    return f"the members' mean is right in {100 * LEVEL:.0f} % of the pixels"


def _cases(model: Model, source: Source, rule: Protocol, indices: Sequence[int]) -> Iterator[Case]:
    """Image by image; ends at one whose members cannot be compared with the truth."""
    view = view_of(rule)
    for index in indices:
        sample = source[index]
        batch = collate([cropped(sample, view.crop)]).to(model.device)
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        (answer,) = model.answers(batch, view, [size])
        case = case_of(answer, batch, rule, model.given)
        if case is None or case.members is None:
            return
        yield case


def _distances(case: Case) -> Tensor:
    """|truth - mean| / s of the scored pixels and channels of one image, "n" float64 on the CPU.

    Where all members are equal it is infinite, or 0 if they are right.
    """
    assert case.members is not None and case.truth is not None
    members, truth = case.members.double(), case.truth.double()
    mean, deviation = moments(members)
    equal = members.amax(0) == members.amin(0)  # whose deviation may be a rounding error
    gap = torch.where(equal, members[0] - truth, mean - truth).abs()
    away = gap / torch.where(equal, 0.0, deviation)
    found = torch.where(gap == 0, 0.0, away)[case.valid.expand_as(truth)].cpu()
    if len(found) <= MOST:
        return found
    middles = (torch.arange(MOST, dtype=torch.float64) + 0.5) * len(found) / MOST
    return found.sort().values[middles.long()]
