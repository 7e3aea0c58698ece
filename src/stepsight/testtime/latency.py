"""How long one picture takes alone, at every setting of a sweep.

A sweep times pictures many at a time, which is what they cost a server that has many. Who has one
picture waits longer than that share: a single row keeps no device busy. So one picture of each
variant and task is answered by itself; all draws of it share what `pipeline.shared` shares, and are
charged for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stepsight.data.collate import collate
from stepsight.data.table import read_sample
from stepsight.distributed import gathered, phase, rank, world
from stepsight.evaluation.jobs import ScoringJob
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.scoring.items import PART
from stepsight.evaluation.views import cropped, view_of
from stepsight.scaling.sampling.paired import Setting

REPEATS = 2  # of which the quicker counts: whatever interferes takes time


def latencies(jobs: Sequence[ScoringJob], images: Sequence[int]) -> list[dict[Setting, float]]:
    """Seconds of every setting of each job, whose picture is the one of that number in its source.

    All processes take part, each with every n-th job, and have the same answer.
    """
    phase("times one picture alone", PART)
    pairs = list(enumerate(zip(jobs, images)))[rank() :: world()]
    mine = {number: _latency(job, image) for number, (job, image) in pairs}
    timed = {number: times for part in gathered(mine) for number, times in part.items()}
    return [timed[number] for number in range(len(jobs))]


@torch.inference_mode()
def _latency(job: ScoringJob, image: int) -> dict[Setting, float]:
    model, view = job.predictor, view_of(job.protocols[0])
    assert isinstance(model, Model)
    batch = collate([cropped(read_sample(job.source, image), view.crop)]).to(model.device)
    times = [model.alone(batch, view) for _ in range(REPEATS)]
    return {setting: min(each[setting] for each in times) for setting in times[0]}
