"""Verifiers: which of several members to trust, judged without the truth.

A verifier gives every member of every image a disagreement, lower is better, from what anyone has
who predicts: the inputs, the model, the members. Those that gather evidence by more predictions
spend half of the calls on it, so that a verifier is compared at equal total calls. `VERIFIERS`
names them; a new one is a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    nfe: int  # calls a member
    seed: int = 0
    rows: int = 64

    def decoded(self) -> list[Prediction]:
        """Each member in physical units."""
        return [self.task.decode(member) for member in self.members]

    def evidence(self, task: str, batch: Batch) -> Prediction:
        """The merge of as many members of `task` on `batch` as there are candidates."""
        drawn = self.pipeline.sample(
            batch, task, nfe=self.nfe, members=len(self.members), seed=self.seed, rows=self.rows
        )
        return self.pipeline.task(task).merge(drawn)


@dataclass(frozen=True)
class Verifier:
    """A row of the table."""

    tasks: tuple[str, ...]
    disagreement: Callable[[Candidates], Tensor]  # "e b", lower is better
    doubles: bool = False  # spends as many calls on evidence as on the candidates
    partner: str = ""  # the other task that gives evidence
    needs_codes: bool = False  # values that the task encodes from its prediction alone
    needs_vae: bool = False

    def fits(self, pipeline: DensePipeline, task: Task, batch: Batch) -> bool:
        """Whether it has something to say on this model and these inputs."""
        if task.name not in self.tasks or self.partner == task.name:
            return False
        if self.needs_vae and isinstance(pipeline.codec, Pixels):
            return False
        if self.needs_codes and task.needs not in ("amodal", "labels"):
            return False
        if not self.partner:
            return True
        other = pipeline.tasks.get(self.partner)
        return other is not None and all(getattr(batch, field) is not None for field in other.asks)


def photometric(found: Candidates) -> Tensor:
    """Flow: the difference of the first frame and the second one warped back by the member."""
    first, second = found.batch.image, found.batch.second
    assert second is not None
    each = [photometric_error(first, second, one.values) for one in found.decoded()]
    return torch.stack(each)


def forward_backward(found: Candidates) -> Tensor:
    """Flow: how far the merged flow from the second frame to the first misses the way back."""
    batch = found.batch
    assert batch.second is not None
    swapped = replace(batch, image=batch.second, second=batch.image)
    backward = found.evidence(found.task.name, swapped).values
    return torch.stack([inconsistency(one.values, backward) for one in found.decoded()])


def visible_mask(found: Candidates) -> Tensor:
    """Amodal: the share of the visible mask that the whole leaves out. It is asked of the mask, not
    of the probability, or it would prefer whatever is overconfident and large."""
    modal = found.batch.modal
    assert modal is not None
    left_out = [masked_mean(one.values <= 0.5, modal) for one in found.decoded()]
    return torch.stack(left_out)


def code_round_trip(found: Candidates) -> Tensor:
    """|encode(decode(x)) - x|: how far the member is from the codes of a decided answer."""
    each = []
    for member, one in zip(found.members, found.decoded()):
        code = found.task.encode(_decided(found.batch, found.task, one.values)).x
        each.append((code - member[:, : code.shape[1]]).abs().flatten(1).mean(dim=1))
    return torch.stack(each)


def _decided(batch: Batch, task: Task, values: Tensor) -> Batch:
    """The batch with a prediction, class ids or probabilities, in the place of the truth."""
    if task.needs == "labels":
        return replace(batch, labels=values[:, 0])
    mask = values > 0.5
    return replace(batch, amodal=mask, amodal_valid=torch.ones_like(mask))


def codec_round_trip(found: Candidates) -> Tensor:
    """|decode(encode(x)) - x|: how far the member is from the pictures that the VAE knows."""
    codec, passes = found.pipeline.codec, found.task.passes
    each = []
    for member in found.members:
        parts = member.chunk(passes, dim=1)
        back = [codec.decode(codec.encode(part), part.shape[1]) for part in parts]
        each.append((torch.cat(back, dim=1) - member).abs().flatten(1).mean(dim=1))
    return torch.stack(each)


def edges_of(partner: str) -> Callable[[Candidates], Tensor]:
    """Agreement across tasks: 1 - the correlation of edge strengths, blurred by a pixel, of the
    member and of the merged `partner`, both in target space."""

    def disagreement(found: Candidates) -> Tensor:
        there = found.evidence(partner, found.batch)
        size = (int(found.members.shape[-2]), int(found.members.shape[-1]))
        edges = resize(_edges(found.pipeline.task(partner), there.x), size)
        each = [correlation(_edges(found.task, member), edges) for member in found.members]
        return 1 - torch.stack(each)

    return disagreement


def _edges(task: Task, x: Tensor) -> Tensor:
    """Edge strength "b 1 h w" of a sample, read as decided, averaged over 3 x 3 pixels."""
    if task.needs == "labels":  # the noise of undecided codes is no edge
        values = task.decode(x).values
        x = (values == torch.arange(int(values.max()) + 1, device=x.device)[:, None, None]).to(x)
    return F.avg_pool2d(edge_strength(x), kernel_size=3, stride=1, padding=1)


VERIFIERS: dict[str, Verifier] = {
    "photometric": Verifier(("flow",), photometric),
    "forward_backward": Verifier(("flow",), forward_backward, doubles=True),
    "visible_mask": Verifier(("amodal",), visible_mask),
    "code_round_trip": Verifier(("amodal", "semantic"), code_round_trip, needs_codes=True),
    "codec_round_trip": Verifier(
        ("depth", "flow", "amodal", "semantic", "normals"), codec_round_trip, needs_vae=True
    ),
    **{
        f"{partner}_edges": Verifier(
            ("depth", "flow", "semantic"), edges_of(partner), doubles=True, partner=partner
        )
        for partner in ("depth", "flow", "semantic")
    },
}


def verifiers_for(pipeline: DensePipeline, task: Task, batch: Batch) -> dict[str, Verifier]:
    """Those of the table that judge the members of `task` on `batch`."""
    return {name: one for name, one in VERIFIERS.items() if one.fits(pipeline, task, batch)}
