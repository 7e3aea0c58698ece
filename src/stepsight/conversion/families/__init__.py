"""Families of published checkpoints: how one is told from the files it has, and who imports it.

A row names the pipeline classes of a family's model_index.json. Several families may share a class,
and nothing else in the folder may tell them apart: then the folder's name does, or the user
(`--family`), and what was assumed is said; without either the folder is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsight.conversion.folders import INDEX, WRITTEN, Found, read_json
from stepsight.errors import UserError, suggest
from stepsight.plugins import resolve

if TYPE_CHECKING:
    from stepsight.conversion.dit import Wishes
    from stepsight.conversion.families.source import Source
    from stepsight.conversion.write import Converted

HERE = "stepsight.conversion.families"


@dataclass(frozen=True)
class KnownFamily:
    """A row: `importer` "module:function" takes a `Source` and `Wishes`.

    classes: `_class_name` of model_index.json. words: in the name of a folder of the family, where
    its class is shared; the first family whose words all occur is taken. keys: that its
    model_index.json has, of families that share a class.
    """

    importer: str
    classes: tuple[str, ...]
    words: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __call__(self, source: Source, wishes: Wishes) -> Converted:
        return resolve(self.importer)(source, wishes)


MARIGOLD = f"{HERE}.marigold"
GENPERCEPT = f"{HERE}.genpercept"
# In the order in which names are tried: those of more words first.
FAMILIES: dict[str, KnownFamily] = {
    "e2e-ft-normals": KnownFamily(
        f"{MARIGOLD}:e2e_normals", ("MarigoldPipeline",), ("e2e", "normal")
    ),
    "e2e-ft-depth": KnownFamily(f"{MARIGOLD}:e2e_depth", ("MarigoldPipeline",), ("e2e",)),
    "marigold-depth": KnownFamily(
        f"{MARIGOLD}:depth",
        ("MarigoldDepthPipeline", "MarigoldPipeline"),
        ("marigold",),
        ("default_denoising_steps", "prediction_type"),
    ),
    "marigold-normals": KnownFamily(f"{MARIGOLD}:normals", ("MarigoldNormalsPipeline",)),
    "marigold-iid": KnownFamily(f"{HERE}.iid:intrinsics", ("MarigoldIntrinsicsPipeline",)),
    "genpercept-disparity": KnownFamily(
        f"{GENPERCEPT}:disparity", ("GenPerceptPipeline",), ("genpercept", "disparity")
    ),
    "genpercept-normals": KnownFamily(
        f"{GENPERCEPT}:normals", ("GenPerceptPipeline",), ("genpercept", "normal")
    ),
    "genpercept-depth": KnownFamily(
        f"{GENPERCEPT}:depth", ("GenPerceptPipeline",), ("genpercept", "depth")
    ),
    **{
        f"lotus-{name}-{kind.lower()}": KnownFamily(
            f"{HERE}.lotus:{importer}", (f"Lotus{kind}Pipeline",), ("lotus", name)
        )
        for name, importer in (("disparity",) * 2, ("normal", "normals"), ("depth",) * 2)
        for kind in "GD"
    },
    "geowizard": KnownFamily(f"{HERE}.geowizard:geowizard", ("DepthNormalEstimationPipeline",)),
    "stable-diffusion-inpainting": KnownFamily(
        f"{HERE}.inpainting:inpainting", ("StableDiffusionInpaintPipeline",)
    ),
    "stable-diffusion": KnownFamily(f"{MARIGOLD}:generator", ("StableDiffusionPipeline",)),
}


def find_family(path: Path, asked: str | None = None) -> Found:
    """The family of a folder in diffusers' layout.

    Raises UserError for a pipeline that is not supported, a family that it cannot be of, and where
    nothing tells which of several it is of.
    """
    if asked is not None and asked not in FAMILIES:
        raise UserError(f"--family {asked}: unknown.{suggest(asked, FAMILIES)}")
    index, written = read_json(path / INDEX), path / WRITTEN
    kind = index.get("_class_name")
    fitting = [name for name, row in FAMILIES.items() if kind in row.classes]
    if not fitting:
        known = sorted({name for row in FAMILIES.values() for name in row.classes})
        raise UserError(f"{path} holds a {kind}. Supported are {', '.join(known)}.")
    if asked is None and written.is_file():
        asked = read_json(written).get("family")
    if asked is not None:
        if asked not in fitting:
            raise UserError(f"{path} holds a {kind}: of {' or '.join(fitting)}, not of {asked}.")
        return Found(asked)
    if len(fitting) == 1:
        return Found(fitting[0])
    return _told(path, index, kind, fitting)


def _told(path: Path, index: Mapping[str, Any], kind: str | None, fitting: list[str]) -> Found:
    """One of several families that share a class."""
    for name in fitting:
        if said := [key for key in FAMILIES[name].keys if key in index]:
            return Found(name, (f"a {kind} with {said[0]} is of {name}",))
    words = "/".join(path.resolve().parts[-3:]).lower()
    for name in fitting:
        other = "depth" if "normal" in name else "normal"  # "normals/lotus-depth" tells neither
        if other not in words and all(word in words for word in FAMILIES[name].words):
            told = f"of {name}, by the name of the folder: a {kind} does not say (--family)"
            return Found(name, (told,))
    raise UserError(
        f"{path} holds a {kind}, which {', '.join(fitting)} share, and nothing tells which it is. "
        f"Name it with --family."
    )
