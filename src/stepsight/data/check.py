"""Is this data set what it claims to be? Every sample is read, and everything wrong is collected.

What is looked at: the count against the published one, whether each file can be read at all and has
the bit depth and size it should, and whether the truth makes sense. The fingerprint is a hash of
all keys and values: equal for two copies of a data set, whatever files they are kept in.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from stepsight.data.config import SourceSettings
from stepsight.data.fields import get, present
from stepsight.data.plausible.judging import QUICK, RULES, summary, votes
from stepsight.data.plausible.ranges import Range, range_of
from stepsight.data.plausible.rules import PlausibleRule, Vote
from stepsight.data.table import Source, notes_of, open_source
from stepsight.data.workers import each
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

CLOSELY = 32  # leading samples that the rules look at which take long
State = Literal["complete", "partial", "more", "unknown"]


@dataclass(frozen=True)
class Facts:
    """What a sample holds. One that cannot be read has no key and one problem, which names it."""

    key: str = ""
    size: tuple[int, int] = (0, 0)  # height, width
    ranges: dict[str, Range] | None = None
    digest: str = ""
    problems: tuple[str, ...] = ()  # that keep it from being looked at
    votes: tuple[Vote, ...] = ()  # what it says to the rules of `data.plausible`

    @property
    def findings(self) -> tuple[str, ...]:
        """All that is wrong with it, by itself."""
        return (*self.problems, *(str(one) for one in summary(self.votes) if one.grave))


@dataclass(frozen=True)
class Report:
    """What a data set holds, and what is wrong with it."""

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
    remarks: tuple[str, ...]  # worth knowing, and no fault
    fingerprint: str

    @property
    def ok(self) -> bool:
        """A part of a data set is no failure; any finding is."""
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
    `report(examined, total)` counts samples. Raises `UserError` for what the caller can fix,
    such as a root or split that is not there.
    """
    try:
        source = open_source(settings, split)
    except DataFormatError as error:
        name, fingerprint = settings.name, _fingerprint([])
        return Report(
            name, split, 0, 0, None, False, "unknown", {}, {}, (str(error),), (), fingerprint
        )
    count = len(source) if images is None else min(images, len(source))
    examined = []
    for facts in each(partial(examine, source), range(count), workers):
        examined.append(facts)
        if report is not None:
            report(len(examined), count)
    return _reported(source, split, examined)


def examine(source: Source, index: int) -> Facts:
    """Read a sample; what keeps it from being read is a problem of it."""
    try:
        return facts_of(source[index], source, RULES if index < CLOSELY else QUICK)
    except (UserError, OSError) as error:
        return Facts(problems=(str(error),))


def facts_of(sample: Sample, source: Source, rules: Sequence[PlausibleRule] = RULES) -> Facts:
    """What a sample of `source` holds, and what is wrong with it."""
    height, width = sample.image.shape[-2:]
    named = tuple(f"{sample.key}: {problem}" for problem in _shape_problems(sample))
    facts = Facts(sample.key, (height, width), {}, _digest(sample), named)
    if named:
        return facts
    return replace(facts, ranges=ranges_of(sample), votes=tuple(votes(sample, source, rules)))


def ranges_of(sample: Sample) -> dict[str, Range]:
    """The range of each quantity of a sample: metres of depth, pixels of flow (its length), ..."""
    ranges: dict[str, Range] = {}
    for row, value in present(sample):
        if row.ranges is not None:
            ranges |= row.ranges(value, sample)
        elif row.kind == "map":
            ranges[row.name] = range_of(value, get(sample, row.valid))
        elif row.kind == "ids":
            ranges[row.name] = range_of(value, row.counted(value))
    return ranges


def _shape_problems(sample: Sample) -> Iterator[str]:
    size = sample.image.shape[-2:]
    for row, value in present(sample):
        if row.dense and value.shape[-2:] != size:
            yield f"{row.name} has {tuple(value.shape[-2:])} pixels, the image {tuple(size)}"


def _digest(sample: Sample) -> str:
    """A hash of every value and of the key, but not of the name of the source."""
    digest = hashlib.blake2b(sample.key.encode(), digest_size=16)
    for row, value in present(sample):
        if row.kind != "number":
            digest.update(f"{row.name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    digest.update(str(sample.class_id).encode())
    return digest.hexdigest()


def _reported(source: Source, split: str, samples: list[Facts]) -> Report:
    published: dict[str, int] = dict(getattr(source, "published", {}))
    expected = published.get(split, sum(published.values()) if split == "all" else None) or None
    state = _state(len(source), expected, split in published)
    findings = [problem for facts in samples for problem in facts.problems]
    said = summary(one for facts in samples for one in facts.votes)
    findings += [str(remark) for remark in said if remark.grave]
    recalled = bool(expected) and getattr(source, "recalled", False)
    if state == "more" and not recalled:
        findings.append(f"{len(source)} samples, where {expected} are published")
    counts = Counter(facts.key for facts in samples if facts.key)
    findings += [f"{key}: {n} samples have this key" for key, n in counts.items() if n > 1]
    sizes = Counter(f"{f.size[0]} x {f.size[1]}" for f in samples if f.key)
    return Report(
        data=source.name,
        split=split,
        samples=len(source),
        examined=len(samples),
        published=expected,
        recalled=recalled,
        state=state,
        sizes=dict(sizes.most_common()),
        ranges=_merged([facts.ranges for facts in samples if facts.ranges]),
        findings=tuple(findings),
        remarks=(*notes_of(source), *(str(remark) for remark in said if not remark.grave)),
        fingerprint=_fingerprint(samples),
    )


def _state(count: int, expected: int | None, exact: bool) -> State:
    """`exact`: the number is that of this very split, not the sum over some splits."""
    if expected is None or (count > expected and not exact):
        return "unknown"
    return "partial" if count < expected else "more" if count > expected else "complete"


def _merged(ranges: list[dict[str, Range]]) -> dict[str, Range]:
    """Over samples: the extremes, and the mean of the valid shares."""
    merged = {}
    for name in dict.fromkeys(name for sample in ranges for name in sample):
        spans = [sample[name] for sample in ranges if name in sample]
        low = min((span.low for span in spans if span.valid > 0), default=float("nan"))
        high = max((span.high for span in spans if span.valid > 0), default=float("nan"))
        merged[name] = Range(low, high, sum(span.valid for span in spans) / len(spans))
    return merged


def _fingerprint(samples: list[Facts]) -> str:
    digests = sorted(facts.digest for facts in samples if facts.key)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
