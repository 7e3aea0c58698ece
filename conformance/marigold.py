"""Marigold and E2E-FT: stored answers of their pipelines, from picture to prediction."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from conformance.publishing import drawing, imported, members_of, whole
from conformance.rows import Differences, arrays, relative, row
from stepsight import ensemble
from stepsight.pipeline.dense import DensePipeline

DIFFUSERS = "diffusers 0.42 {}, stored answers"
BAR = 1e-5


def _resolved(pipeline: DensePipeline, resolution: int) -> DensePipeline:
    """At another processing resolution; -1: its own."""
    return pipeline if resolution < 0 else pipeline.at(resolution)


def _unit(x: Tensor) -> Tensor:
    """Target space to the publisher's [0, 1]."""
    return (x + 1) / 2


def marigold(folder: Path, task: str) -> Differences:
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    with imported(folder / "checkpoint") as whole_pipeline:
        for case in sorted({name.partition("_")[0] for name in given}):
            _, _, resolution, steps, members = given[f"{case}_arguments"].tolist()
            pipeline = _resolved(whole_pipeline, resolution)
            options = {"nfe": steps, "members": members}
            image, wanted = given[f"{case}_image"], f"{case}_prediction"
            with drawing(given[f"{case}_noise"], given.get(f"{case}_step_noise")):
                if (raw := stored.get(f"{case}_members")) is not None:
                    drawn = members_of(pipeline, image, task, **options).clamp(-1, 1)
                    theirs = raw.reshape(drawn.shape)
                    ours = _unit(drawn) if task == "depth" else drawn
                    found[f"{case} members"] = relative(ours, theirs)
                    if task == "depth":  # BFGS stopped after two steps: fed with their members
                        merged, spread = ensemble.merge_published(theirs[:, None])
                        answer = pipeline.tasks[task].rescale(
                            merged, image.shape[:2], pipeline.profile.resize_output
                        )
                        found[f"{case} merged"] = relative(
                            answer.flatten(), stored[wanted].flatten()
                        )
                        continue
                answer = whole(pipeline, image, task, **options).values[0]
            theirs = stored[wanted]
            if task == "normals":
                theirs = theirs.reshape(image.shape).movedim(-1, 0)
                answer = answer * answer.new_tensor([1, -1, -1])[:, None, None]
            found[f"{case} prediction"] = relative(answer.flatten(), theirs.flatten())
    return found


@row(
    "importer",
    "marigold-depth-v1-0",
    oracle=DIFFUSERS.format("MarigoldDepthPipeline"),
    bar=BAR,
    golden="marigold-depth-v1-0",
)
def depth_v1_0(folder: Path) -> Differences:
    """Leading DDIM: members, the merge of theirs, and predictions at nine sizes."""
    return marigold(folder, "depth")


@row(
    "importer",
    "marigold-depth-v1-1",
    oracle=DIFFUSERS.format("MarigoldDepthPipeline"),
    bar=BAR,
    golden="marigold-depth-v1-1",
)
def depth_v1_1(folder: Path) -> Differences:
    """Trailing DDIM from zero terminal SNR: the same."""
    return marigold(folder, "depth")


@row(
    "importer",
    "marigold-depth-lcm-v1-0",
    oracle=DIFFUSERS.format("MarigoldDepthPipeline"),
    bar=BAR,
    golden="marigold-depth-lcm-v1-0",
)
def depth_lcm(folder: Path) -> Differences:
    """Latent consistency with its draws between steps: the same."""
    return marigold(folder, "depth")


@row(
    "importer",
    "marigold-normals-v1-1",
    oracle=DIFFUSERS.format("MarigoldNormalsPipeline"),
    bar=BAR,
    golden="marigold-normals-v1-1",
)
def normals_v1_1(folder: Path) -> Differences:
    """Clipped members, the closest one to their mean direction, and predictions."""
    return marigold(folder, "normals")
