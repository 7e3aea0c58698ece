"""What is inside in a mask, what the numbers of labels mean, and the units of flow and normals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.decoding.labels import label_codes
from stepsight.data.decoding.masks import read_mask
from stepsight.data.looking.contents import LOSSY, MANY, FileForm
from stepsight.data.looking.found import Answers
from stepsight.errors import UserError

NONE = 255  # of labels
ADE20K = 150
BEYOND = 0.05  # share of a visible mask that may lie outside the whole one
BORDER = 0.6  # share of the border beyond which what is inside is rather the background
SHORT = 1.5  # components of flow that may be shares of the picture's size


@dataclass
class Meaning:
    """How a quantity is encoded: options of the reader, and what to print of it."""

    options: dict[str, Any] = field(default_factory=dict)
    encoding: dict[str, Any] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    certain: bool = True
    legend: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


def read_masks(pairs: Sequence[tuple[Path, Path]], answers: Answers) -> Meaning:
    """The inside of visible and whole masks, the files of some objects."""
    inside = answers.mask_inside
    masks, errors = [], []
    for paths in pairs:
        try:
            masks.append(tuple(read_mask(path, inside)[0].numpy() for path in paths))
        except UserError as error:
            errors.append(str(error))
    if not masks:
        return Meaning(problem=errors[0].removesuffix("."))
    options = {"mask_inside": inside} if inside else {}
    said = f"inside is {inside}, as you say." if inside else "each mask has one meaning of its own."
    shares = [float(whole.mean()) for _, whole in masks]
    covered = f"inside covers {min(shares):.0%} to {max(shares):.0%} of the pictures."
    meaning = Meaning(options, {"inside": inside or "told by each"}, [said, covered])
    around = float(np.mean([_border(whole) for _, whole in masks]))
    beyond = sum(_reaches_beyond(*pair) for pair in masks)
    if around > BORDER and not inside:
        meaning.certain = False
        meaning.problem = (
            f"inside covers {around:.0%} of the border, as a background does. If the object is "
            "dark, say --mask-inside dark; if not, --mask-inside bright"
        )
    elif beyond:
        meaning.problem = (
            f"{beyond} of {len(masks)} visible masks reach beyond the whole ones. Are the two "
            "exchanged, or inside out"
        )
    return meaning


def _border(mask: np.ndarray) -> float:
    """The share of the border that is inside."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def _reaches_beyond(visible: np.ndarray, whole: np.ndarray) -> bool:
    """Whether pixels are visible, and no part of the whole: more than a border may be off by."""
    if visible.shape != whole.shape:
        return False
    return float((visible & ~whole).sum()) > BEYOND * float(visible.sum())


def read_outlines(paths: Sequence[Path], answers: Answers) -> Meaning:
    """Classes of objects that LabelMe or COCO files outline."""
    names = label_codes("", paths[0].parent, paths).names
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    text = f"outlines of objects, as label maps of {len(names)} classes: {shown}."
    meaning = Meaning({}, {"classes": len(names)}, [text])
    if answers.classes:
        meaning.problem = "--classes is of label files; outlines name their classes"
    return meaning


def read_label_maps(
    form: FileForm,
    files: Sequence[np.ndarray],
    words: Iterable[str],
    suffix: str,
    legend: list[dict[str, Any]],
    answers: Answers,
) -> Meaning:
    """What label files' numbers or colours mean."""
    said = {*words}
    if answers.classes:
        return _answered(answers.classes)
    if suffix in LOSSY:
        return Meaning(problem="labels are kept with losses, which changes the numbers of classes")
    if any((values != values[..., :1]).any() for values in files):
        if legend and "color" in legend[0]:
            text = f"colours, which a legend in the tree gives {len(legend)} names."
            return Meaning({}, {"classes": len(legend)}, [text], legend=legend)
        count = len(
            {tuple(c) for v in files for c in np.unique(v.reshape(-1, v.shape[-1]), axis=0)}
        )
        return Meaning(
            problem=f"labels are {count} colours. Say --classes legend.json, a file of "
            '[{"name": "road", "color": [128, 64, 128]}, ...]'
        )
    values = np.unique(np.concatenate([np.unique(one[..., 0]) for one in files])).tolist()
    top = int(values[-1])
    listed = f"{len(values)} values, {values[0]:g} to {top}"
    if any(value % 1 for value in values) or top > NONE or values[0] < 0:
        return Meaning(problem=f"labels hold {listed}: no numbers of classes from 0 to 254")
    if "labelids" in said or {"label", "ids"} <= said and "gtfine" in said:
        text = f"{listed}; named labelIds: Cityscapes' numbers, of which 19 are classes."
        return Meaning({"class_codes": "cityscapes"}, {"classes": "cityscapes"}, [text])
    if {"ade", "sceneparse", "adechallengedata"} & said and top <= ADE20K:
        text = f"{listed}; the name says ADE20K: 0 is no class, and classes count from 1."
        return Meaning({"class_codes": "1.."}, {"classes": "1.."}, [text])
    if len(values) <= 2 and top > 1:
        legend = [{"name": "background", "id": 0}, {"name": "object", "id": top}]
        text = f"two values, 0 and {top}: background and one class."
        return Meaning({}, {"classes": 2}, [text], legend=legend)
    return _numbered(values, listed, form.look == "palette")


def _numbered(values: list[float], listed: str, indices: bool) -> Meaning:
    """indices: of a palette, which are numbers of classes whatever their steps."""
    numbers = [int(value) for value in values if value != NONE]
    steps = np.gcd.reduce(numbers) if len(numbers) > 1 and not indices else 1
    if steps > 1 and NONE in values:
        return Meaning(
            problem=f"labels hold {listed}, all but 255 multiples of {steps}: drawn for the eye? "
            'Say --classes legend.json, a file of [{"name": ..., "id": ...}, ...]'
        )
    if steps > 1 and len(numbers) <= MANY:
        legend = [{"name": f"{number}", "id": number} for number in numbers]
        text = f"{listed}, all multiples of {steps}: each value is taken as a class."
        return Meaning({}, {"classes": len(numbers)}, [text], certain=False, legend=legend)
    text = f"{listed}: a value is the number of its class"
    if NONE in values:
        text += ", and 255 no class."
        return Meaning({}, {"classes": 1 + max(numbers, default=0)}, [text])
    text += "; 255 does not occur. If 0 means no class, say --classes 1.."
    return Meaning({}, {"classes": 1 + max(numbers)}, [text], certain=False)


def _answered(classes: str) -> Meaning:
    text = f"classes are {classes}, as you say."
    if classes.isdecimal():
        if not int(classes):
            return Meaning(problem="--classes 0 is no number of classes")
        return Meaning({"classes": int(classes)}, {"classes": int(classes)}, [text])
    codes = classes if classes in ("1..", "cityscapes") else str(Path(classes).resolve())
    return Meaning({"class_codes": codes}, {"classes": classes}, [text])


def read_flows(suffix: str, files: Sequence[np.ndarray], answers: Answers) -> Meaning:
    """Whether flow "h w c" is in pixels."""
    if answers.flow_unit:
        text = f"flow is in {answers.flow_unit}, as you say."
        return Meaning({"flow_unit": answers.flow_unit}, {"unit": answers.flow_unit}, [text])
    if suffix == ".png" and any(values[..., 2].max() > 1 for values in files):
        return Meaning(
            problem="the third channel of its PNG files holds more than KITTI's 0 and 1, as "
            "Virtual KITTI's does, which the reader vkitti2 reads"
        )
    if suffix in (".png", ".flo", ".flo5"):
        return Meaning({}, {"unit": "pixels"}, [f"{suffix} files hold flow in pixels."])
    flat = np.concatenate([values[..., :2].ravel() for values in files])
    flat = np.abs(flat[np.isfinite(flat) & (np.abs(flat) < 1e9)])
    if not flat.size:
        return Meaning(problem="no file that was looked at holds a known flow")
    top = float(flat.max())
    if top <= SHORT:
        return Meaning(
            problem=f"flow is {top:.3g} at most: pixels, or shares of the picture. Say --flow-unit "
            "pixels, or normalised"
        )
    text = f"up to {top:.4g}: more than shares of the picture are, so in pixels."
    return Meaning({}, {"unit": "pixels"}, [text])


def read_normal_maps(form: FileForm, files: Sequence[np.ndarray]) -> Meaning:
    """Whether these are normals."""
    if form.look == "colour":
        text = "8-bit colours, 2 v / 255 - 1 a channel (x right, y down, z forward), black none."
        return Meaning({}, {"unit": "unit vectors"}, [text], certain=False)
    lengths = np.concatenate(
        [np.linalg.norm(v[..., :3].astype(float), axis=-1).ravel() for v in files]
    )
    lengths = lengths[lengths > 0]
    if not lengths.size or abs(np.median(lengths) - 1) > 0.05:
        found = f"{np.median(lengths):.3g}" if lengths.size else "0"
        return Meaning(problem=f"normals have length {found}, not 1")
    return Meaning({}, {"unit": "unit vectors"}, ["vectors of length 1."])
