"""GenPercept: stored answers of its pipeline, from picture to prediction."""

from __future__ import annotations

from pathlib import Path

import torch

from conformance.publishing import drawing, imported, members_of, recorded, whole
from conformance.rows import Differences, arrays, relative, row
from stepsight.conversion.dit import Wishes
from stepsight.diffusion.objective import Diffusion
from stepsight.models.vae import VAE
from stepsight.tasks.base import resize

ORACLE = "aim-uofa/GenPercept GenPerceptPipeline, stored answers"


def genpercept(folder: Path, family: str, task: str, mode: str) -> Differences:
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    cases = [name.split("_")[1] for name in stored if name.startswith(f"{mode}_")]
    with imported(folder / "checkpoint", Wishes(family=family)) as pipeline:
        told = pipeline.diffusion.steps(1)[0].condition
        for case in sorted(set(cases)):
            image, resolution = given[f"{case}_image"], int(given[f"{case}_arguments"][2])
            sized, theirs = pipeline.at(resolution), f"{mode}_{case}"
            with (
                drawing(torch.full_like(stored[f"{theirs}_latents"], torch.nan)),
                recorded(VAE, "encode") as encoded,
                recorded(Diffusion, "sample") as latents,
            ):
                members = members_of(sized, image, task, nfe=1, members=1)
                answer = whole(sized, image, task).values
            found[f"{case} level"] = relative([told], stored[f"{theirs}_timesteps"])
            found[f"{case} image latent"] = relative(encoded[0], stored[f"{theirs}_image_latent"])
            found[f"{case} latent"] = relative(latents[0], stored[f"{theirs}_latents"])
            prediction = stored[f"{theirs}_prediction"]
            if task == "normals":  # theirs are brought back before they are of unit length
                answer = (1 + resize(members.clamp(-1, 1), (image.shape[0], image.shape[1]))) / 2
                prediction = prediction.movedim(-1, 0)
            found[f"{case} prediction"] = relative(answer.squeeze(), prediction)
    return found


@row("importer", "genpercept-depth", oracle=ORACLE, bar=1e-5, golden="genpercept")
def depth(folder: Path) -> Differences:
    """The level told, the picture's latent, minus the answer to it, and depth at five sizes."""
    return genpercept(folder, "genpercept-depth", "depth", "depth")


@row("importer", "genpercept-normals", oracle=ORACLE, bar=1e-5, golden="genpercept")
def normals(folder: Path) -> Differences:
    """The same for normals at three sizes, before they are made unit vectors."""
    return genpercept(folder, "genpercept-normals", "normals", "normal")
