"""The unit of stored depth, and the value that stands for none, told from the values themselves.

No container says either. What can be told: names, what the tree declares, grids (whole millimetres
at 5000 to the metre are multiples of 5), the steps of a camera's disparities, sparse laser returns,
planes (on which 1/depth is linear in the picture), and what distances are plausible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from stepsight.data.plausible.depths import TRIPLES, TURNED, straightness
from stepsight.types import Sample

PER_METRE = {"mm": 1000.0, "cm": 100.0, "1/256": 256.0, "1/5000": 5000.0}  # of whole numbers
NEAREST, FARTHEST, USUAL = 0.1, 130.0, (0.25, 50.0)  # metres: 1 %, 99 % and half of the pixels
NAMED = {  # what names say outright,
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "disparity": "disp disparity disparities invdepth inverse",
}
USED = {"mm": "nyu nyuv scannet hypersim", "cm": "vkitti", "1/256": "kitti", "1/5000": "tum"}
WORD = {word: unit for unit, said in NAMED.items() for word in said.split()}
SET = {word: unit for unit, said in USED.items() for word in said.split()}  # and of data sets
STEP = 1e3 / (580 * 75 * 8)  # metres a square metre in mm: 1/8 pixel, 580 px focal length, 75 mm
ALIKE = 1.5  # factor within which steps are those of such a camera
SMALL = 1.0  # largest of floats that are distances as likely as disparities, or shares
APART = 100.0  # times that files of one unit do not differ by
SHOWN = 5e-4  # share of pixels that is worth a sentence
COMMON = 0.01  # share of pixels from which a largest value is no measurement
OFTEN, NEXT = 3, 17  # times that it is held, over the most of so many next ones
GAP = 1.5  # that value over the next, from which it stands apart
SPARSE, WIDE = 0.5, 2.2  # share without a value, width over height of what a laser car sees


class Summary(NamedTuple):
    """What the depth files looked at hold."""

    values: np.ndarray  # float64, finite and above 0, without codes
    whole: bool
    type: str
    none: float  # share of pixels that hold 0, a negative number, NaN or infinity
    codes: dict[float, float]  # values that stand apart: their share
    negative: bool
    planes: tuple[np.ndarray, ...]  # "h w", as stored
    wide: float  # width over height


class Fact(NamedTuple):
    """What speaks for a unit."""

    unit: str
    says: str
    decides: bool = True  # alone; else it is a guess


@dataclass
class DepthReading:
    """A unit with what speaks for it; or none, and the units that are left."""

    unit: str = ""
    invalid: tuple[float, ...] = ()
    evidence: list[str] = field(default_factory=list)
    certain: bool = True
    left: dict[str, tuple[float, float]] = field(default_factory=dict)  # unit: metres, from to
    problem: str = ""


def summary(planes: Iterable[np.ndarray], invalid: tuple[float, ...]) -> Summary:
    """Of stored planes "h w", once what the user calls `invalid` is taken out."""
    planes = tuple(planes)
    flat = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    known = np.isfinite(flat) & (flat > 0) & ~np.isin(flat, invalid)
    values = flat[known]
    codes = {} if invalid else _codes(values, planes)
    values = values[~np.isin(values, list(codes))]
    height, width = planes[0].shape
    return Summary(
        values,
        _whole_numbers(values, planes[0].dtype),
        planes[0].dtype.name,
        1 - known.mean(),
        codes,
        bool((flat < 0).any()),
        planes,
        width / height,
    )


def _whole_numbers(values: np.ndarray, kind: np.dtype) -> bool:
    """Whether these are whole numbers that are no metres."""
    return (
        bool(values.size)
        and not np.any(values % 1)
        and (kind.kind != "f" or values.max() > FARTHEST)
    )


def _codes(values: np.ndarray, planes: tuple[np.ndarray, ...]) -> dict[float, float]:
    """Largest values that are none: 65535, what stands apart, or what many pixels share exactly."""
    if not values.size:
        return {}
    held, counts = np.unique(values, return_counts=True)
    top, share = held[-1], counts[-1] / len(values)
    if len(held) < 2:
        return {}
    apart = top > GAP * held[-2]
    often = share >= COMMON and counts[-1] > OFTEN * counts[-NEXT:-1].max()
    often = often and sum(bool((plane == top).any()) for plane in planes) > 1
    if often or apart and (top == 65535 or share >= COMMON):
        return {float(top): float(share)}
    return {}


def read_unit(found: Summary, words: Iterable[str], said: Iterable[Fact]) -> DepthReading:
    """The unit that the evidence decides, or those that are left.

    words: of the names of files and folders; said: by the documents and the layout of the tree.
    """
    reading = DepthReading(invalid=tuple(found.codes))
    if not found.values.size:
        reading.problem = "no file that was looked at holds a value above 0"
        if found.negative:
            reading.problem += ": z that comes out of the picture? Store its negative"
        return reading
    reading.evidence += list(_stored(found))
    reading.problem = _mixed(found.planes) or _stretched(found)
    if reading.problem:
        return reading
    facts = [fact for fact in said if fact.decides or found.whole]
    facts += [*_named(words, found.whole), *(_whole(found) if found.whole else _floats(found))]
    if _inverse(found.planes):
        text = "slopes are straight as stored, and bent once inverted: these are disparities."
        facts.append(Fact("disparity", text, decides=False))  # a ramp may bend that way too
    units = dict.fromkeys(fact.unit for fact in facts)
    reading.evidence += [fact.says for fact in facts]
    plausible = {unit: span for unit in PER_METRE if (span := _span(found, unit))}
    if not found.whole and found.values.max() <= SMALL:
        plausible = {unit: _metres_of(found, unit) for unit in ("m", "disparity")}
    if len(units) == 1:
        reading.unit = next(iter(units))
        reading.certain = len(facts) > 1 or facts[0].decides
        if reading.unit in PER_METRE and reading.unit not in plausible:
            low, high = _metres_of(found, reading.unit)
            reading.certain = False
            reading.problem = (
                f"{low:.2g} to {high:.3g} m, in {reading.unit}, are no plausible distances"
            )
        return reading
    reading.left = {unit: _metres_of(found, unit) for unit in units} or plausible
    if len(reading.left) == 1:
        reading.unit, reading.certain = next(iter(reading.left)), False
        reading.evidence.append(f"only {reading.unit} makes plausible distances of them.")
    return reading


def _mixed(planes: Sequence[np.ndarray]) -> str:
    """What keeps files from having one unit."""
    if len({plane.dtype.kind == "f" for plane in planes}) > 1:
        return "some files hold floats and others whole numbers, which no one unit explains"
    middles = [float(np.median(known)) for one in planes if (known := one[one > 0]).size]
    if middles and max(middles) > APART * min(middles):
        return (
            f"half of the pixels are below {min(middles):.4g} in one file, and below "
            f"{max(middles):.4g} in another: these are several units"
        )
    return ""


def _stretched(found: Summary) -> str:
    """What keeps files from having any unit: each fills the range of its container."""
    known = [finite for plane in found.planes if (finite := plane[np.isfinite(plane)]).size]
    tops, lows = ({float(end(values)) for values in known} for end in (np.max, np.min))
    code = bool(tops & found.codes.keys()) and max(tops) > GAP * found.values.max()
    if len(known) < 2 or lows != {0.0} or tops not in ({1.0}, {65535.0}) or code:
        return ""
    return (
        f"each file goes from 0 to exactly {max(tops):g}: stretched to its own range, so that no "
        "distance is left. If near is large, say --depth-unit disparity; if far is, store metres"
    )


def _stored(found: Summary) -> Iterator[str]:
    low, high = found.values.min(), found.values.max()
    kind = f"whole numbers as {found.type}" if found.whole else found.type
    middle = np.median(found.values)
    yield f"stored as {kind}, {low:.6g} to {high:.6g}, half of them below {middle:.6g}."
    if found.none >= SHOWN:
        what = "0, negative, NaN or infinite" if found.negative else "0, NaN or infinite"
        yield f"{found.none:.1%} of the pixels are {what}: no value."
    for code, share in found.codes.items():
        yield f"{share:.1%} of the others hold exactly {code:g}, the largest: taken as no value."


def _named(words: Iterable[str], whole: bool) -> Iterator[Fact]:
    for word in dict.fromkeys(words):
        if word in WORD:
            yield Fact(WORD[word], f"the name says '{word}': {WORD[word]}.")
        elif whole and word in SET:
            text = f"the name says '{word}', whose depth is in {SET[word]}."
            yield Fact(SET[word], text, decides=False)


def _whole(found: Summary) -> Iterator[Fact]:
    steps = _steps(found.values)
    for unit, scale in PER_METRE.items():
        if steps and 1 / ALIKE < steps * scale / STEP < ALIKE:
            yield Fact(
                unit,
                "stored values lie apart by the square of the distance, as those of a "
                f"structured-light camera do in {unit} (1/8 pixel at 580 px x 75 mm).",
            )
    if np.gcd.reduce(np.unique(found.values).astype(np.int64)) == 5:
        yield Fact(
            "1/5000", "all are multiples of 5, as whole millimetres are at 5000 to the metre."
        )
    if found.none > SPARSE and found.wide > WIDE and _span(found, "1/256"):
        text = "few pixels of wide pictures have a value, as in projected laser scans (KITTI)."
        yield Fact("1/256", text, decides=False)


def _steps(values: np.ndarray) -> float:
    """Step over square of stored values, where it is alike over their range; else 0."""
    levels = np.unique(values)
    if len(levels) < 40:
        return 0.0
    steps, middle = np.diff(levels), (levels[1:] + levels[:-1]) / 2
    ratio = steps / middle**2
    near, far = (float(np.median(part)) for part in np.array_split(ratio, 2))
    grows = np.median(steps[len(steps) * 3 // 4 :]) > 2 * steps.min()
    return far if grows and 1 / ALIKE < near / far < ALIKE else 0.0


def _floats(found: Summary) -> Iterator[Fact]:
    low, middle, high = np.quantile(found.values, (0.01, 0.5, 0.99))
    plausible = (
        found.values.max() > SMALL
        and NEAREST <= low
        and USUAL[0] <= middle <= USUAL[1]
        and high <= FARTHEST
    )
    if plausible and not _inverse(found.planes):
        yield Fact("m", "as metres they are plausible distances.")


def _inverse(planes: Iterable[np.ndarray]) -> bool | None:
    """Whether slopes are straight in the values as they are stored, and not in their inverses;
    None where neither can be told."""
    shares = []
    for plane in planes:
        depth = torch.from_numpy(plane.astype(np.float64))[None]
        share, count = straightness(Sample(depth[0], "", "", depth=depth))
        if count >= TRIPLES and not TURNED < share < 1 - TURNED:
            shares.append(share)
    return float(np.median(shares)) < 0.5 if shares else None


def _metres_of(found: Summary, unit: str) -> tuple[float, float]:
    low, high = np.quantile(found.values, (0.01, 0.99)) / PER_METRE.get(unit, 1.0)
    return float(low), float(high)


def _span(found: Summary, unit: str) -> tuple[float, float] | None:
    """Metres, from to, if the distances are plausible."""
    low, high = _metres_of(found, unit)
    middle = float(np.median(found.values)) / PER_METRE[unit]
    usual = USUAL[0] <= middle <= USUAL[1]
    return (low, high) if NEAREST <= low and high <= FARTHEST and usual else None
