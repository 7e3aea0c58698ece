"""Is this data set what it claims to be? Every sample is read, and everything wrong is collected.

What is looked at: the count against the published one, whether each file can be read at all and has
the bit depth and size it should, and whether the truth makes sense. The fingerprint is a hash of
all keys and values: equal for two copies of a data set, whatever files they are kept in.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from stepsight.data.config import SourceSettings
from stepsight.data.table import Source, open_source
from stepsight.data.workers import each
from stepsight.errors import DataFormatError, UserError
from stepsight.types import IGNORE, Sample

State = Literal["complete", "partial", "more", "unknown"]
UNIT_TOLERANCE = 0.01  # by which the length of a normal may differ from 1
DIAGONALS = 2.0  # of the image: what moves farther was read in another unit


@dataclass(frozen=True)
class Range:
    """Smallest and largest valid value, and the share of pixels that are valid."""

    low: float
    high: float
    valid: float


@dataclass(frozen=True)
class Facts:
    """What one sample holds. A sample that cannot be read has no key and one problem."""

    key: str = ""
    size: tuple[int, int] = (0, 0)  # height, width
    ranges: dict[str, Range] | None = None
    digest: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found in a data set."""

    data: str
    split: str
    samples: int
    examined: int
    published: int | None
    recalled: bool  # that number comes from memory: a larger count is no finding
    state: State  # of the count: against the published one
    sizes: dict[str, int]  # "height x width": samples
    ranges: dict[str, Range]  # depth in metres, flow as length in pixels, labels, ...
    findings: tuple[str, ...]
    fingerprint: str

    @property
    def ok(self) -> bool:
        """A part of a data set is no failure; anything found is."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}


def check(
    settings: SourceSettings,
    split: str = "all",
    *,
    images: int | None = None,
    workers: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Report:
    """Examine the first `images` samples (None: all) of the data set that `settings` describe.

    What is wrong with the files is collected, also where it keeps the data set from being opened.
    `report(examined, total)` counts samples. Raises `UserError` for what is the caller's to mend,
    such as a root or split that is not there.
    """
    try:
        source = open_source(settings, split)
    except DataFormatError as error:
        return _unreadable(settings.name, split, str(error))
    count = len(source) if images is None else min(images, len(source))
    found = []
    for facts in each(partial(examine, source), range(count), workers):
        found.append(facts)
        if report is not None:
            report(len(found), count)
    return _reported(source, split, found)


def examine(source: Source, index: int) -> Facts:
    """Read one sample; what keeps it from being read is a problem of it."""
    try:
        return facts_of(source[index], source)
    except (UserError, OSError) as error:
        return Facts(problems=(str(error),))


def facts_of(sample: Sample, source: Source) -> Facts:
    """What a sample of `source` holds, and what is wrong with it."""
    height, width = sample.image.shape[-2:]
    problems, ranges = list(_shape_problems(sample)), {}
    if not problems:
        problems, ranges = list(_problems(sample, source)), ranges_of(sample)
    named = tuple(f"{sample.key}: {one}" for one in problems)
    return Facts(sample.key, (height, width), ranges, _digest(sample), named)


def ranges_of(sample: Sample) -> dict[str, Range]:
    """The range of each quantity of a sample: metres of depth, pixels of flow (its length), ..."""
    found = {}
    if sample.depth is not None:
        found["depth"] = _range(sample.depth, sample.depth_valid)
    if sample.flow is not None:
        found["flow"] = _range(sample.flow.norm(dim=0, keepdim=True), sample.flow_valid)
    if sample.labels is not None:
        found["labels"] = _range(sample.labels, sample.labels != IGNORE)
    if sample.instances is not None:
        found["instances"] = _range(sample.instances, sample.instances > 0)
    if sample.amodal is not None and sample.modal is not None:
        hidden = (sample.amodal & ~sample.modal).sum() / sample.amodal.sum().clamp_min(1)
        share = float(sample.amodal.float().mean())
        found["hidden"] = Range(float(hidden), float(hidden), share)
    if sample.normals is not None:
        found["normals"] = _range(sample.normals, sample.normals_valid)
    return found


def _range(values: Tensor, valid: Tensor | None) -> Range:
    valid = torch.ones_like(values[:1], dtype=torch.bool) if valid is None else valid
    chosen = values[valid.expand_as(values)]
    if not chosen.numel():
        return Range(float("nan"), float("nan"), 0.0)
    return Range(float(chosen.min()), float(chosen.max()), float(valid.float().mean()))


def _shape_problems(sample: Sample) -> Iterator[str]:
    size = sample.image.shape[-2:]
    for field in fields(Sample):
        value = getattr(sample, field.name)
        if isinstance(value, Tensor) and field.name != "order" and value.shape[-2:] != size:
            yield f"{field.name} has {tuple(value.shape[-2:])} pixels, the image {tuple(size)}"


def _problems(sample: Sample, source: Source) -> Iterator[str]:
    yield from _field_problems(sample)
    yield from _range_problems(sample, getattr(source, "farthest", math.inf))
    if sample.labels is not None and source.classes:
        known = (sample.labels < len(source.classes)) & (sample.labels >= 0)
        if wrong := sample.labels[~known & (sample.labels != IGNORE)].unique().tolist():
            yield f"labels {wrong[:5]} are none of the {len(source.classes)} classes"
    if sample.class_id is not None and not 0 <= sample.class_id < len(source.categories):
        yield f"class {sample.class_id} is none of the {len(source.categories)} categories"


def _field_problems(sample: Sample) -> Iterator[str]:
    """What is wrong with the valid values of each field."""
    for name in ("depth", "flow", "normals"):
        values, valid = getattr(sample, name), getattr(sample, f"{name}_valid")
        if values is None:
            continue
        if not valid.any():
            yield f"no valid {name}"
        elif not values[valid.expand_as(values)].isfinite().all():
            yield f"{name} has NaN or infinite values among the valid ones"
    if sample.depth is not None and (sample.depth[sample.depth_valid] <= 0).any():
        yield "depth is not positive everywhere it is valid"
    if sample.normals is not None:
        lengths = sample.normals.norm(dim=0, keepdim=True)[sample.normals_valid]
        if ((lengths - 1).abs() > UNIT_TOLERANCE).any():
            yield "normals are not of unit length"
    if sample.modal is not None and sample.amodal is not None:
        if (sample.modal & ~sample.amodal).any():
            yield "the whole mask does not contain the visible one"
    if sample.order is not None:
        limits = sample.order.new_tensor([*sample.image.shape[-2:], *sample.image.shape[-2:]])
        if ((sample.order < 0) | (sample.order >= limits)).any():
            yield "a point lies outside the image"


def _range_problems(sample: Sample, farthest: float) -> Iterator[str]:
    """Values that a wrong unit or scale explains best."""
    ranges, diagonal = ranges_of(sample), math.hypot(*sample.image.shape[-2:])
    if "depth" in ranges and ranges["depth"].high > farthest:
        yield f"depth of {ranges['depth'].high:.4g} m, which nobody measured: in another unit?"
    if "flow" in ranges and ranges["flow"].high > DIAGONALS * diagonal:
        yield f"flow of {ranges['flow'].high:.4g} px, in an image {diagonal:.0f} px across: unit?"


def _digest(sample: Sample) -> str:
    """A hash of every value and of the key, but not of the name of the source."""
    digest = hashlib.blake2b(sample.key.encode(), digest_size=16)
    for field in fields(Sample):
        value = getattr(sample, field.name)
        if isinstance(value, Tensor):
            digest.update(f"{field.name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    digest.update(str(sample.class_id).encode())
    return digest.hexdigest()


def _reported(source: Source, split: str, found: list[Facts]) -> Report:
    published: dict[str, int] = dict(getattr(source, "published", {}))
    expected = published.get(split, sum(published.values()) if split == "all" else None) or None
    state = _state(len(source), expected, split in published)
    findings = [problem for facts in found for problem in facts.problems]
    recalled = bool(expected) and getattr(source, "recalled", False)
    if state == "more" and not recalled:
        findings.append(f"{len(source)} samples, where {expected} are published")
    counts = Counter(facts.key for facts in found if facts.key)
    findings += [f"{key}: {n} samples have this key" for key, n in counts.items() if n > 1]
    sizes = Counter(f"{f.size[0]} x {f.size[1]}" for f in found if f.key)
    return Report(
        data=source.name,
        split=split,
        samples=len(source),
        examined=len(found),
        published=expected,
        recalled=recalled,
        state=state,
        sizes=dict(sizes.most_common()),
        ranges=_merged([facts.ranges for facts in found if facts.ranges]),
        findings=tuple(findings),
        fingerprint=_fingerprint(found),
    )


def _state(count: int, expected: int | None, exact: bool) -> State:
    """`exact`: the number is that of this very split, not the sum over some splits."""
    if expected is None or (count > expected and not exact):
        return "unknown"
    return "partial" if count < expected else "more" if count > expected else "complete"


def _merged(ranges: list[dict[str, Range]]) -> dict[str, Range]:
    """Over samples: the extremes, and the mean of the valid shares."""
    merged = {}
    for name in dict.fromkeys(name for one in ranges for name in one):
        every = [one[name] for one in ranges if name in one]
        known = [one for one in every if one.valid > 0]
        merged[name] = Range(
            min((one.low for one in known), default=float("nan")),
            max((one.high for one in known), default=float("nan")),
            sum(one.valid for one in every) / len(every),
        )
    return merged


def _fingerprint(found: list[Facts]) -> str:
    digests = sorted(facts.digest for facts in found if facts.key)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _unreadable(data: str, split: str, problem: str) -> Report:
    """Of a data set that cannot even be opened."""
    return Report(data, split, 0, 0, None, False, "unknown", {}, {}, (problem,), _fingerprint([]))
