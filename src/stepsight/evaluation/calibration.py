"""One scale per task that makes a stated uncertainty as wide as the errors are.

Members of an ensemble agree too much: the central intervals of a normal distribution with their
mean and standard deviation s cover less of the truth than they say. So s is multiplied by a
number a, fitted on scenes that nobody is scored on, such that mean +- z a s covers exactly 90 % of
the scored pixels there (z = 1.645), where every image weighs the same. Intervals are compared with
the truth as `evaluation.spread` compares them: in metres after the protocol's alignment, in pixels.
Masks and classes state probabilities, which need no scale.

A scale makes widths right on average, for as many calls and members as it was fitted with. Whether
the spread also says where the errors are is another question (`report.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stepsight.data.bad import BadItems
from stepsight.data.collate import collate
from stepsight.data.table import Source, read_samples
from stepsight.distributed import gathered, rank, world
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.spread import LEVEL, case_of
from stepsight.evaluation.views import cropped, size_of, view_of
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.uncertainty import Case, half_width, moments
from stepsight.pipeline.dense import DensePipeline

MOST = 2**16  # distances kept of an image; of more than these every n-th by size


@torch.inference_mode()
def fit_calibration(
    pipeline: DensePipeline,
    source: Source,
    task: str,
    indices: Sequence[int],
    protocol: Protocol,
    *,
    nfe: int,
    members: int,
    seed: int = 0,
    chunk_size: int = 64,
    bad: BadItems | None = None,
) -> dict[str, Any] | None:
    """The record of a task's scale, fitted on `indices` of `source` as `protocol` scores them; None
    for a task whose uncertainty is no interval.

    Members (at least 2) start from noise of temperature 1, and are sampled in all else as the
    pipeline is set up. "scale" is None where none exists, and "reason" says why. All processes
    take part, and have the same record. bad: what to do about images that cannot be read; None:
    stop.
    """
    assert members > 1, "one member has no spread"
    pipeline = pipeline.sampling(temperature=1.0)
    sampler = pipeline.diffusion.settings.sampler
    model = Model(pipeline, task, [nfe], [members], sampler, seed, chunk_size, keep=True)
    cases = _cases(model, source, protocol, indices[rank() :: world()], bad or BadItems())
    parts = gathered([_distances(case) for case in cases])
    every = [image for part in parts for image in part]
    if not every:
        return None
    distances = [image for image in every if len(image)]
    scale = scale_of(distances)
    raw = [float((image <= half_width(LEVEL)).double().mean()) for image in distances]
    return {
        "scale": scale,
        "nfe": nfe,
        "members": members,
        "temperature": 1.0,
        "sampler": sampler,
        "level": LEVEL,
        "coverage_raw": sum(raw) / len(raw) if raw else None,
        "images": len(distances),
        "protocol": protocol.id,
    } | ({} if scale is not None else {"reason": _reason(distances)})


def scale_of(distances: Sequence[Tensor], level: float = LEVEL) -> float | None:
    """The least a for which |truth - mean| / s <= z a for `level` of the pixels; `distances`, an
    "n" for each image, are these quotients. None where only infinity would do, or there is no
    pixel."""
    if not distances:
        return None
    weights = torch.cat([torch.full_like(image, 1 / len(image)) for image in distances])
    ascending, order = torch.cat(list(distances)).sort()
    reached = weights[order].cumsum(0) / len(distances)
    place = int(torch.searchsorted(reached, level * (1 - 1e-9)).clamp(max=len(ascending) - 1))
    scale = float(ascending[place]) / half_width(level)
    return scale if math.isfinite(scale) and scale > 0 else None


def _reason(distances: Sequence[Tensor]) -> str:
    if not distances:
        return "no pixel is scored"
    equal = sum(float(image.isinf().double().mean()) for image in distances) / len(distances)
    if equal > 1 - LEVEL:
        return f"all members are equal, and not right, in {100 * equal:.0f} % of the pixels"
    return f"the members' mean is right in {100 * LEVEL:.0f} % of the pixels"


def _cases(
    model: Model, source: Source, protocol: Protocol, indices: Sequence[int], bad: BadItems
) -> Iterator[Case]:
    """Image by image; ends at the first whose members cannot be compared with the truth."""
    view = view_of(protocol)
    for index in indices:
        (sample,) = read_samples(source, [index], partial(bad.met, source.name, of=len(source)))
        if sample is None:
            continue
        batch = collate([cropped(sample, view.crop)]).to(model.device)
        (estimate,) = model.estimates(batch, view, [size_of(sample)])
        case = case_of(estimate, batch, protocol, model.given)
        if case is None or case.members is None:
            return
        yield case


def _distances(case: Case) -> Tensor:
    """|truth - mean| / s of the scored pixels and channels of an image, "n" float64 on the CPU.

    Where all members are equal it is infinite, or 0 if they are right.
    """
    assert case.members is not None and case.truth is not None
    members, truth = case.members.double(), case.truth.double()
    mean, deviation = moments(members)
    equal = members.amax(0) == members.amin(0)  # whose deviation may be a rounding error
    gap = torch.where(equal, members[0] - truth, mean - truth).abs()
    away = gap / torch.where(equal, 0.0, deviation)
    distances = torch.where(gap == 0, 0.0, away)[case.valid.expand_as(truth)].cpu()
    if len(distances) <= MOST:
        return distances
    middles = (torch.arange(MOST, dtype=torch.float64) + 0.5) * len(distances) / MOST
    return distances.sort().values[middles.long()]
