"""Marigold and E2E-FT: stored answers of their pipelines, from picture to prediction."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline
from torch import Tensor

from conformance.publishing import apart, drawing, imported, latents_of, members_of, whole
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
            draws = given.get(f"{case}_step_noise")
            draws = None if draws is None else draws[:, ::3]  # each is stored three times
            with drawing(given[f"{case}_noise"], draws):
                if (raw := stored.get(f"{case}_members")) is not None:
                    drawn = members_of(pipeline, image, task, **options).clamp(-1, 1)
                    theirs = raw.reshape(drawn.shape)
                    ours = _unit(drawn) if task == "depth" else drawn
                    found[f"{case} members"] = relative(ours, theirs)
                    if task == "depth":
                        found |= {f"{case} {what}": one for what, one in _merged(theirs).items()}
                        continue
                with latents_of(pipeline) as latents:
                    answer = whole(pipeline, image, task, **options).values[0]
            found[f"{case} latents"] = relative(latents[0], stored[f"{case}_latents"][:, -1])
            theirs = stored[wanted]
            if task == "normals":
                theirs = theirs.reshape(image.shape).movedim(-1, 0)
                answer = answer * answer.new_tensor([1, -1, -1])[:, None, None]
                found[f"{case} prediction"] = apart(answer, theirs)
                continue
            found[f"{case} prediction"] = relative(answer.flatten(), theirs.flatten())
    return found


def _merged(maps: Tensor) -> Differences:
    """The merge of maps "e 1 h w" beside the class's own, run here: BFGS stopped after two steps
    follows the last bits, which are each processor's own, so a stored answer binds one of them."""
    theirs = MarigoldDepthPipeline.ensemble_depth(maps, output_uncertainty=True)
    ours = ensemble.merge_published(maps[:, None])
    return {
        "merged": relative(ours[0], theirs[0]),
        "spread": relative(ours[1], theirs[1]),
    }


@row(
    "importer",
    "marigold-depth-v1-0",
    oracle=DIFFUSERS.format("MarigoldDepthPipeline"),
    bar=BAR,
    golden="marigold-depth-v1-0",
)
def depth_v1_0(folder: Path) -> Differences:
    """Leading DDIM: members, their merge beside the class run here, predictions at nine sizes."""
    return marigold(folder, "depth")


@row(
    "importer",
    "marigold-depth-v1-1",
    oracle=DIFFUSERS.format("MarigoldDepthPipeline"),
    bar=3e-5,
    golden="marigold-depth-v1-1",
)
def depth_v1_1(folder: Path) -> Differences:
    """Trailing DDIM from zero terminal SNR: the same. Members are 1e-5 apart between AVX2 and
    AVX-512 of one processor."""
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


def end_to_end(folder: Path, task: str) -> Differences:
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    with imported(folder / "checkpoint") as whole_pipeline:
        for name, image in given.items():
            case, _, what = name.partition("_")
            if what != "image":
                continue
            resolution = int(given[f"{case}_arguments"][2])
            pipeline = _resolved(whole_pipeline, resolution)
            if (raw := stored.get(f"{case}_decoded")) is not None:
                drawn = members_of(pipeline, image, task, nfe=1, members=1)[0]
                raw = raw.reshape(-1, *drawn.shape[-2:])
                found[f"{case} decoded"] = relative(
                    drawn, raw.mean(0)[None] if task == "depth" else raw
                )
            with latents_of(pipeline) as latents:
                answer = whole(pipeline, image, task).values[0]
            found[f"{case} latents"] = relative(latents[0], stored[f"{case}_latents"])
            again = whole(pipeline, image, task, seed=1).values[0]
            theirs = stored[f"{case}_prediction"]
            if task == "normals":  # theirs are shorter where they were averaged
                theirs = F.normalize(theirs, dim=0)
                answer = answer * answer.new_tensor([1, -1, -1])[:, None, None]
                found[f"{case} prediction"] = apart(answer, theirs)
            else:
                found[f"{case} prediction"] = relative(answer[0], theirs)
            found[f"{case} other seed"] = relative(again, whole(pipeline, image, task).values[0])
    return found


E2E = "VisualComputingInstitute/diffusion-e2e-ft 4ff5aad, stored answers"


@row("importer", "e2e-ft-depth", oracle=E2E, bar=BAR, golden="e2e-ft-depth")
def e2e_depth(folder: Path) -> Differences:
    """Zeros in one step: decoded, stretched, brought back; whatever the seed."""
    return end_to_end(folder, "depth")


@row("importer", "e2e-ft-normals", oracle=E2E, bar=BAR, golden="e2e-ft-normals")
def e2e_normals(folder: Path) -> Differences:
    """Zeros in one step: decoded, and directions brought back; whatever the seed."""
    return end_to_end(folder, "normals")
