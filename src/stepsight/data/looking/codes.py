"""What is inside in a mask, what the numbers of labels mean, and the units of flow and normals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.looking.contents import Form
from stepsight.data.looking.found import Answers

MANY = 64  # distinct values of a file that is no mask and no map of a few classes
NONE = 255  # of labels
ADE20K = 150
BORDER = 0.6  # share of the border beyond which what is bright is rather the background
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


def levels(files: Iterable[np.ndarray]) -> Counter[float]:
    """Distinct stored values: in how many files they occur."""
    return Counter(value for values in files for value in np.unique(values).tolist())


def read_masks(form: Form, files: Sequence[np.ndarray], answers: Answers) -> Meaning:
    """The inside of masks, "h w c" as stored."""
    if answers.mask_inside:
        said = f"inside is {answers.mask_inside}, as you say."
        inside = answers.mask_inside
        return Meaning({"mask_inside": inside}, {"inside": inside}, [said])
    if form.look == "alpha" and _flat_but_alpha(files):
        said = "colours are constant and the alpha channel is not: the mask is the alpha channel."
        return Meaning({"mask_inside": "alpha"}, {"inside": "alpha"}, [said])
    grey = [_single(values) for values in files]
    if any(values is None for values in grey):
        colours = "its channels differ: a mask in colours, of which any could be the inside"
        return Meaning(problem=f"{colours}. Say --mask-inside nonzero (all but black) or bright")
    planes = [values for values in grey if values is not None]
    found = levels(planes)
    if len(found) == 1:
        return Meaning(problem=f"all masks hold nothing but {min(found):g}: empty, or full")
    if len(found) == 2 and min(found) == 0:
        inside, meaning = "nonzero", f"two values, 0 and {max(found):g}: inside is {max(found):g}."
    else:
        inside, meaning = "bright", f"{len(found)} values: inside is above the middle."
        if len(found) <= 8 and max(found) < 128:
            values = ", ".join(f"{value:g}" for value in sorted(found))
            return Meaning(
                problem=f"masks hold {values}: say --mask-inside with that of the object"
            )
    result = Meaning({"mask_inside": inside}, {"inside": inside}, [meaning])
    around = np.mean([_border(values, max(found) / 2) for values in planes])
    if around > BORDER:
        result.certain = False
        result.problem = (
            f"what is bright covers {around:.0%} of the border, as a background does. If the "
            "object is dark, say --mask-inside dark; if not, --mask-inside bright"
        )
    return result


def _flat_but_alpha(files: Sequence[np.ndarray]) -> bool:
    colours = all(np.ptp(values[..., :-1], axis=(0, 1)).max() == 0 for values in files)
    return colours and any(np.ptp(values[..., -1]) > 0 for values in files)


def _single(values: np.ndarray) -> np.ndarray | None:
    """The one channel that a mask has, or None."""
    if values.shape[-1] == 4 and np.ptp(values[..., 3]) == 0:
        values = values[..., :3]
    if values.shape[-1] in (1, 3) and not np.ptp(values, axis=-1).any():
        return values[..., 0]
    return None


def _border(values: np.ndarray, middle: float) -> float:
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return float((edge > middle).mean())


def read_label_maps(
    form: Form, files: Sequence[np.ndarray], words: Iterable[str], suffix: str, answers: Answers
) -> Meaning:
    """What label files' numbers or colours mean."""
    said = {*words}
    if answers.classes:
        return _answered(answers.classes)
    if suffix in (".jpg", ".jpeg"):
        return Meaning(problem="labels are stored as JPEG, which changes the numbers of classes")
    if form.channels > 1 and any(_single(values) is None for values in files):
        count = len(
            {tuple(c) for v in files for c in np.unique(v.reshape(-1, v.shape[-1]), axis=0)}
        )
        return Meaning(
            problem=f"labels are {count} colours. Say --classes legend.json, a file of "
            '[{"name": "road", "color": [128, 64, 128]}, ...]'
        )
    found = levels(files)
    values, top = sorted(found), int(max(found))
    listed = f"{len(values)} values, {values[0]:g} to {top}"
    if any(value % 1 for value in values) or top > NONE or values[0] < 0:
        return Meaning(problem=f"labels hold {listed}: no numbers of classes from 0 to 254")
    if "labelids" in said or {"label", "ids"} <= said and "gtfine" in said:
        text = f"{listed}; named labelIds: Cityscapes' numbers, of which 19 are classes."
        return Meaning({"class_codes": "cityscapes"}, {"classes": "cityscapes"}, [text])
    if {"ade", "sceneparse"} & said and top <= ADE20K:
        text = f"{listed}; the name says ADE20K: 0 is no class, and classes count from 1."
        return Meaning({"class_codes": "1.."}, {"classes": "1.."}, [text])
    if len(values) <= 2 and top > 1:
        legend = [{"name": "background", "id": 0}, {"name": "object", "id": top}]
        text = f"two values, 0 and {top}: background and one class."
        return Meaning({}, {"classes": 2}, [text], legend=legend)
    return _numbered(values, listed)


def _numbered(values: list[float], listed: str) -> Meaning:
    numbers = [int(value) for value in values if value != NONE]
    steps = np.gcd.reduce(numbers) if len(numbers) > 1 else 1
    if steps > 1 and len(numbers) <= MANY:
        legend = [{"name": f"{number}", "id": number} for number in numbers]
        text = f"{listed}, all multiples of {steps}: each value is taken as a class."
        return Meaning({}, {"classes": len(numbers)}, [text], certain=False, legend=legend)
    text = f"{listed}: a value is the number of its class"
    if NONE in values:
        text += ", and 255 no class."
        return Meaning({}, {"classes": 1 + max(numbers, default=0)}, [text])
    text += "; 255 does not occur. If 0 means no class, say --classes 1.."
    return Meaning({}, {"classes": 1 + max(numbers)}, [text + "."], certain=False)


def _answered(classes: str) -> Meaning:
    text = f"classes are {classes}, as you say."
    if classes.isdigit():
        return Meaning({"classes": int(classes)}, {"classes": int(classes)}, [text])
    codes = classes if classes in ("1..", "cityscapes") else str(Path(classes).resolve())
    return Meaning({"class_codes": codes}, {"classes": classes}, [text])


def read_flows(suffix: str, files: Sequence[np.ndarray], answers: Answers) -> Meaning:
    """Whether flow "h w c" is in pixels."""
    if answers.flow_unit:
        text = f"flow is in {answers.flow_unit}, as you say."
        return Meaning({"flow_unit": answers.flow_unit}, {"unit": answers.flow_unit}, [text])
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


def read_normal_maps(form: Form, files: Sequence[np.ndarray]) -> Meaning:
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
