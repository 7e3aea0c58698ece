"""GeoWizard: stored answers of its pipelines, from picture to prediction, both versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.publishing import drawing, imported, latents_of, members_of, settled, whole
from conformance.rows import Differences, arrays, relative, row
from stepsight import ensemble
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.geowizard import DOMAINS
from stepsight.models.joint import JointAttention
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import single

ORACLE = "fuxiao0719/GeoWizard {}, stored answers"
BAR = 1e-5
TASKS = ("depth", "normals")


@contextmanager
def _apart(alone: bool) -> Iterator[None]:
    """Without shared keys and values, as the publisher's code is without xformers."""
    if not alone:
        yield
        return
    with mock.patch.object(JointAttention, "_all", lambda self, x: x):
        yield


def geowizard(folder: Path) -> Differences:
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    for case in sorted({name.partition("_")[0] for name in given}):
        domain = DOMAINS[int(given[f"{case}_domain"])]
        with imported(folder / "checkpoint", Wishes(domain=domain)) as own, _apart(case == "x"):
            answers = _case(own, case, given, stored)
            found |= {f"{case} {what}": one for what, one in answers.items()}
    return found


def _case(own: DensePipeline, case: str, given: Any, stored: Any) -> Differences:
    _, _, resolution, steps, members = given[f"{case}_arguments"].tolist()
    pipeline, image = own.at(resolution), given[f"{case}_image"]
    asked = {"nfe": steps, "members": members}
    found: dict[str, float] = {}
    if (seen := stored.get(f"{case}_preprocessed")) is not None:
        batch = single(image.numpy(), pipeline.task("depth"))
        found["picture"] = relative(pipeline.working(batch, "depth").image, seen)
    drawn, answer = {}, {}
    for place, task in enumerate(TASKS):
        with drawing(given[f"{case}_noise"]):
            with latents_of(pipeline) as latents:
                drawn[task] = raw = members_of(pipeline, image, task, **asked)
            answer[task] = whole(pipeline, image, task, **asked).values
        walked = stored[f"{case}_latents"][:, -1, place]
        found[f"{task} latents"] = relative(torch.cat(latents), walked)
        theirs = stored.get(f"{case}_decoded_{task.removesuffix('s')}")
        if theirs is not None:
            theirs = theirs.mean(dim=1, keepdim=True) if task == "depth" else theirs
            found[f"{task} decoded"] = relative(raw, theirs)
    if members == 1:
        found["depth"] = relative(answer["depth"][0, 0], stored[f"{case}_depth"])
    else:  # BFGS stopped after two steps: fed with their members
        theirs = stored[f"{case}_members_depth"]
        found["depth members"] = relative((drawn["depth"][:, 0].clamp(-1, 1) + 1) / 2, theirs)
        task, resizing = pipeline.tasks["depth"], pipeline.profile.of_task("depth").resize_output

        def merged(maps: Tensor) -> Tensor:
            merged, _ = ensemble.merge_published(maps[:, None, None], 0, together=True)
            return task.rescale(merged, image.shape[:2], resizing)[0, 0]

        def spread(maps: Tensor) -> Tensor:
            return ensemble.merge_published(maps[:, None, None], 0, together=True)[1][0, 0]

        found["depth merged"] = settled(merged, theirs, stored[f"{case}_depth"])
        found["depth spread"] = settled(spread, theirs, stored[f"{case}_uncertainty"])
        each = -F.normalize(drawn["normals"], dim=1)
        found["normals members"] = _turned(each, stored[f"{case}_members_normal"])
    theirs = stored[f"{case}_normals"].movedim(-1, 0)[None]
    found["normals"] = _turned(-answer["normals"], theirs)
    return found


def _turned(ours: Tensor, theirs: Tensor) -> float:
    """Mean difference of directions "b 3 h w": that of a vector near zero is undecided. Theirs are
    shorter by 1e-5, which they add to a length before they divide by it."""
    return float((ours - F.normalize(theirs, dim=1)).norm(dim=1).mean())


@row(
    "importer",
    "geowizard",
    oracle=ORACLE.format("geowizard_pipeline.py"),
    bar=BAR,
    golden="geowizard",
)
def first(folder: Path) -> Differences:
    """Version 1, told what CLIP sees: pictures, members, predictions, and the merge of their
    members, no nearer than the answers of two processors are."""
    return geowizard(folder)


@row(
    "importer",
    "geowizard-v2",
    oracle=ORACLE.format("geowizard_v2_pipeline.py"),
    bar=BAR,
    golden="geowizard-v2",
)
def second(folder: Path) -> Differences:
    """Version 2, told the kind of picture in words: the same."""
    return geowizard(folder)
