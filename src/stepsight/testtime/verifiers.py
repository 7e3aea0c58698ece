"""Verifiers: which of several members to trust, judged without the truth.

A verifier gives every member of every image a disagreement, lower is better, from what anyone has
who predicts: the inputs, the model, the members. Those that gather evidence by more predictions
spend half of the calls on it, so that a verifier is compared at equal total calls. `VERIFIERS`
names them, and tasks say which of them judge their members; a new one is a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.metrics.masks.contours import correlation, edge_strength
from stepsight.metrics.photometric import inconsistency, photometric_error
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.base import Task, masked_mean, resize
from stepsight.types import Batch, Prediction


@dataclass(frozen=True)
class Candidates:
    """Members to choose from, and what a verifier may look at."""

    pipeline: DensePipeline
    task: Task
    batch: Batch  # the inputs at working size, without truth
    members: Tensor  # "e b c h w" in the target space
    nfe: int  # calls per member
    seed: int = 0
    chunk_size: int = 64

    def decoded(self) -> list[Prediction]:
        """Each member in physical units."""
        return [self.task.decode(member) for member in self.members]

    def evidence(self, task: str, batch: Batch) -> Prediction:
        """The merge of as many members of `task` on `batch` as there are candidates."""
        noise: dict[str, Any] = {"seed": self.seed, "chunk_size": self.chunk_size}
        members = len(self.members)
        drawn = self.pipeline.sample(batch, task, nfe=self.nfe, members=members, **noise)
        return self.pipeline.task(task).merge(drawn)


@dataclass(frozen=True)
class Verifier:
    """A row of the table."""

    disagreement: Callable[[Candidates], Tensor]  # "e b", lower is better
    doubles: bool = False  # spends as many calls on evidence as on the candidates
    partner: str = ""  # the other task that gives evidence
    needs_vae: bool = False

    def fits(self, pipeline: DensePipeline, batch: Batch) -> bool:
        """Whether it has something to say on this model and these inputs."""
        if self.needs_vae and isinstance(pipeline.codec, Pixels):
            return False
        if not self.partner:
            return True
        other = pipeline.tasks.get(self.partner)
        return other is not None and all(
            getattr(batch, field) is not None for field in other.required_inputs
        )


def photometric(candidates: Candidates) -> Tensor:
    """Flow: the difference of the first frame and the second one warped back by the member."""
    first, second = candidates.batch.image, candidates.batch.second
    assert second is not None
    return torch.stack([photometric_error(first, second, x.values) for x in candidates.decoded()])


def forward_backward(candidates: Candidates) -> Tensor:
    """Flow: how far the merged flow from the second frame to the first misses the way back."""
    batch = candidates.batch
    assert batch.second is not None
    swapped = replace(batch, image=batch.second, second=batch.image)
    backward = candidates.evidence(candidates.task.name, swapped).values
    return torch.stack([inconsistency(x.values, backward) for x in candidates.decoded()])


def visible_mask(candidates: Candidates) -> Tensor:
    """Amodal: the share of the visible mask that the whole leaves out. It is asked of the mask, not
    of the probability, or it would prefer whatever is overconfident and large."""
    modal = candidates.batch.modal
    assert modal is not None
    return torch.stack([masked_mean(x.values <= 0.5, modal) for x in candidates.decoded()])


def code_round_trip(candidates: Candidates) -> Tensor:
    """|encode(decode(x)) - x|: how far the member is from the codes of a decided answer."""
    each = []
    for member, x in zip(candidates.members, candidates.decoded()):
        code = candidates.task.encode(candidates.task.decided(candidates.batch, x.values)).x
        each.append((code - member[:, : code.shape[1]]).abs().flatten(1).mean(dim=1))
    return torch.stack(each)


def codec_round_trip(candidates: Candidates) -> Tensor:
    """|decode(encode(x)) - x|: how far the member is from the pictures that the VAE knows."""
    codec, passes = candidates.pipeline.codec, candidates.task.splits
    each = []
    for member in candidates.members:
        parts = member.chunk(passes, dim=1)
        back = [codec.decode(codec.encode(part), part.shape[1]) for part in parts]
        each.append((torch.cat(back, dim=1) - member).abs().flatten(1).mean(dim=1))
    return torch.stack(each)


def edges(partner: str) -> Verifier:
    """Agreement across tasks: 1 - the correlation of edge strengths, blurred by a pixel, of the
    member and of the merged `partner`, both in target space."""

    def disagreement(candidates: Candidates) -> Tensor:
        task, members = candidates.task, candidates.members
        there = candidates.evidence(partner, candidates.batch)
        size = (int(members.shape[-2]), int(members.shape[-1]))
        theirs = resize(_edges(candidates.pipeline.task(partner), there.x), size)
        return 1 - torch.stack([correlation(_edges(task, member), theirs) for member in members])

    return Verifier(disagreement, doubles=True, partner=partner)


def _edges(task: Task, x: Tensor) -> Tensor:
    """Edge strength "b 1 h w" of a sample, read as decided, averaged over 3 x 3 pixels."""
    return F.avg_pool2d(edge_strength(task.edge_map(x)), kernel_size=3, stride=1, padding=1)


VERIFIERS: dict[str, Verifier] = {
    "photometric": Verifier(photometric),
    "forward_backward": Verifier(forward_backward, doubles=True),
    "visible_mask": Verifier(visible_mask),
    "code_round_trip": Verifier(code_round_trip),
    "codec_round_trip": Verifier(codec_round_trip, needs_vae=True),
}


def verifiers_for(pipeline: DensePipeline, task: Task, batch: Batch) -> dict[str, Verifier]:
    """Those that judge the members of `task` on `batch`: what the task names of the table, and the
    edges of the other tasks of the model, `<task>_edges`, where both have any."""
    chosen = {name: VERIFIERS[name] for name in task.verifiers}
    partners = [name for name, other in pipeline.tasks.items() if other.has_edges]
    if task.has_edges:
        chosen |= {f"{name}_edges": edges(name) for name in partners if name != task.name}
    return {name: row for name, row in chosen.items() if row.fits(pipeline, batch)}
