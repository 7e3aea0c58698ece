"""DepthFM: stored answers of its own code, from picture to prediction."""

from __future__ import annotations

import math
from pathlib import Path

from conformance.publishing import drawing, imported, recorded
from conformance.rows import Differences, arrays, relative, row
from stepsight.diffusion.objective import Diffusion
from stepsight.pipeline import members as drawn_members
from stepsight.pipeline.inputs import single
from stepsight.tasks.depth import Depth


@row(
    "importer",
    "depthfm",
    oracle="CompVis/depth-fm da632c8, stored answers",
    bar=1e-5,
    golden="depthfm",
)
def depthfm(folder: Path) -> Differences:
    """The picture as it is seen, its latent, what paths lead from, the first velocity, the end of
    the walk, decoded members, and the prediction at its own size."""
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    with imported(folder / "checkpoint" / "depthfm-v1.ckpt") as pipeline:
        for case in sorted({name.partition("_")[0] for name in given}):
            *_, steps, members = given[f"{case}_arguments"].tolist()
            image, options = given[f"{case}_image"], {"nfe": steps, "members": members}
            seen = pipeline.working(single(image.numpy(), pipeline.task("depth")), "depth").image
            with (
                drawing(given[f"{case}_noise"]),
                recorded(drawn_members, "begun") as begun,
                recorded(pipeline.net, "forward") as answers,
                recorded(Diffusion, "sample") as walked,
                recorded(pipeline.codec, "decode") as decoded,
                recorded(Depth, "decode") as predicted,
            ):
                pipeline(image.numpy(), "depth", **options)
            low, high = math.exp(-1), math.e  # ours, of their [0, 1]
            ours = {
                "preprocessed": seen,
                "image_latent": pipeline.codec.encode(seen),
                "source": begun[0],
                "velocity_first": -answers[0],
                "latents": walked[0],
                "decoded_mean": decoded[0],
                "prediction": (predicted[0].values[0, 0] - low) / (high - low),
            }
            for name, value in ours.items():
                if (theirs := stored.get(f"{case}_{name}")) is not None:
                    found[f"{case} {name}"] = relative(value, theirs)
    return found
