"""Marigold's intrinsic decompositions: stored answers of diffusers, from picture to prediction."""

from __future__ import annotations

from pathlib import Path

from conformance.publishing import drawing, imported, members_of, whole
from conformance.rows import Differences, arrays, relative, row

DIFFUSERS = "diffusers 0.42 MarigoldIntrinsicsPipeline, stored answers"
BAR = 1e-5


def intrinsics(folder: Path, tasks: tuple[str, ...]) -> Differences:
    given, stored = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    found: dict[str, float] = {}
    with imported(folder / "checkpoint") as own:
        for case in sorted({name.partition("_")[0] for name in given}):
            _, _, resolution, steps, members = given[f"{case}_arguments"].tolist()
            pipeline = own if resolution < 0 else own.at(resolution)
            options = {"nfe": steps, "members": members}
            for place, task in enumerate(tasks):
                with drawing(given[f"{case}_noise"]):
                    answer = whole(pipeline, given[f"{case}_image"], task, **options)
                    drawn = members_of(pipeline, given[f"{case}_image"], task, **options)
                theirs = stored[f"{case}_prediction"][place].movedim(-1, 0)
                found[f"{case} {task}"] = relative(answer.values[0], theirs)
                if (raw := stored.get(f"{case}_decoded")) is not None:
                    each = raw.unflatten(0, (members, len(tasks)))[:, place]
                    height, width = drawn.shape[-2:]
                    found[f"{case} {task} members"] = relative(drawn, each[..., :height, :width])
                if answer.uncertainty is not None:
                    spread = stored[f"{case}_uncertainty"][place].mean(dim=-1)
                    found[f"{case} {task} uncertainty"] = relative(answer.uncertainty[0, 0], spread)
    return found


@row(
    "importer",
    "marigold-iid-appearance-v1-1",
    oracle=DIFFUSERS,
    bar=BAR,
    golden="marigold-iid-appearance-v1-1",
)
def appearance(folder: Path) -> Differences:
    """Albedo and material of one target: members, medians, spreads and predictions."""
    return intrinsics(folder, ("albedo", "material"))


@row(
    "importer",
    "marigold-iid-lighting-v1-1",
    oracle=DIFFUSERS,
    bar=BAR,
    golden="marigold-iid-lighting-v1-1",
)
def lighting(folder: Path) -> Differences:
    """Albedo, shading and residual of one target: the same."""
    return intrinsics(folder, ("albedo", "shading", "residual"))
