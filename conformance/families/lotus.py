"""Lotus: stored answers of its pipelines, from picture to prediction."""

from __future__ import annotations

from pathlib import Path

from conformance.publishing import drawing, imported, members_of, recorded, whole
from conformance.rows import Differences, arrays, relative, row
from stepsight.conversion.dit import Wishes
from stepsight.diffusion.objective import Diffusion
from stepsight.models.vae import VAE

ORACLE = "EnVision-Research/Lotus {}, stored answers"


def lotus(folder: Path, family: str, task: str) -> Differences:
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    with imported(folder / "checkpoint", Wishes(family=family)) as pipeline:
        told = pipeline.net.state_dict()
        found["task"] = relative(told["switch"][:1], stored["task_embedding"])
        found["prompt"] = relative(told["prompt"][:1], stored["empty_text_embedding"])
        for case in sorted({name.partition("_")[0] for name in given}):
            image, resolution = given[f"{case}_image"], int(given[f"{case}_arguments"][2])
            noise, drawn = given.get(f"{case}_noise"), given[f"{case}_posterior_noise"]
            sized = pipeline.at(resolution)
            with (
                drawing(drawn if noise is None else noise, posterior=drawn),
                recorded(VAE, "encode") as encoded,
                recorded(Diffusion, "sample") as latents,
            ):
                members = members_of(sized, image, task, nfe=1, members=1)
                answer = whole(sized, image, task, seed=3).values[0]
            found[f"{case} image latent"] = relative(encoded[0], stored[f"{case}_image_latent"])
            found[f"{case} latent"] = relative(latents[0], stored[f"{case}_latents"])
            if (decoded := stored.get(f"{case}_decoded")) is not None:
                theirs = decoded.clamp(-1, 1)
                theirs = theirs.mean(1, keepdim=True) if task == "depth" else theirs
                found[f"{case} decoded"] = relative(members, theirs)
            theirs = stored[f"{case}_prediction"]
            if task == "normals":  # published in [0, 1], x to the left, of any length
                theirs = 2 * theirs.movedim(-1, 0) - 1
                answer = -answer * theirs.norm(dim=0)
            found[f"{case} prediction"] = relative(answer.squeeze(), theirs.squeeze())
    return found


@row(
    "importer",
    "lotus-depth-g",
    oracle=ORACLE.format("LotusGPipeline"),
    bar=1e-5,
    golden="lotus-depth-g",
)
def depth_g(folder: Path) -> Differences:
    """The sampled latent of the picture, the answer to it and noise, and depth at six sizes."""
    return lotus(folder, "lotus-depth-g", "depth")


@row(
    "importer",
    "lotus-depth-d",
    oracle=ORACLE.format("LotusDPipeline"),
    bar=1e-5,
    golden="lotus-depth-d",
)
def depth_d(folder: Path) -> Differences:
    """The same without noise, from the picture's latent alone."""
    return lotus(folder, "lotus-depth-d", "depth")


@row(
    "importer",
    "lotus-normal-g",
    oracle=ORACLE.format("LotusGPipeline"),
    bar=1e-5,
    golden="lotus-normal-g",
)
def normals_g(folder: Path) -> Differences:
    """The same for normals at three sizes; ours are of unit length, theirs are not."""
    return lotus(folder, "lotus-normal-g", "normals")
