"""pix2gestalt: stored answers of its own code, from picture and mask to pictures of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from conformance.publishing import drawing, imported, recorded
from conformance.rows import Differences, arrays, relative, row
from stepsight.diffusion.objective import Diffusion
from stepsight.models.seeing import SeeingUNet


@row(
    "importer",
    "pix2gestalt",
    oracle="cvlab-columbia/pix2gestalt 1726a9d, stored answers",
    bar=1e-5,
    golden="pix2gestalt",
)
def pix2gestalt(folder: Path) -> Differences:
    """The token of the picture, the condition's latents, the levels visited, the end of the walk,
    and the first member decoded; how far our pictures are from what their 8 bits stand for."""
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    with imported(folder / "checkpoint" / "epoch=000005.ckpt") as published:
        for case in sorted({name.partition("_")[0] for name in given}):
            _, members, scale, eta = given[f"{case}_arguments"].tolist()
            nfe = len(stored[f"{case}_timesteps"])
            pipeline = published.sampling(guidance=scale, eta=eta)
            codec: Any = pipeline.codec
            process = pipeline.diffusion
            image, mask = given[f"{case}_image"].numpy(), given[f"{case}_mask"].numpy() > 0
            steps = given[f"{case}_step_noise"].movedim(1, 0)
            with (
                drawing(given[f"{case}_noise"], steps),
                recorded(SeeingUNet, "encode") as encoded,
                recorded(codec, "encode") as latents,
                recorded(Diffusion, "sample") as walked,
                recorded(codec, "decode") as decoded,
            ):
                pipeline(image, "amodal", mask=mask, nfe=nfe, members=int(members))
            ours = {
                "timesteps": process.schedule.condition(process.times(nfe)[:-1]),
                "cross_attention": encoded[0][1],
                "concat": torch.cat(latents, dim=1) / codec.scale,
                "latents": walked[0],
                "decoded": decoded[0][:1],
            }
            for name, value in ours.items():
                theirs = stored[f"{case}_{name}"]
                found[f"{case} {name}"] = relative(
                    value, theirs[-1] if name == "latents" else theirs
                )
            pictures = (decoded[0].clamp(-1, 1) + 1) * 127.5
            beyond = (pictures.movedim(1, -1) - stored[f"{case}_prediction"] - 0.5).abs() - 0.5
            found[f"{case} prediction"] = float(beyond.clamp_min(0).max() / 255)
    return found
