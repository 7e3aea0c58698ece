"""What the page of a study shows: figures after "Scaling Properties of Diffusion Models for
Perceptual Tasks" (arXiv:2411.08034), each with its law and a sentence.

All are errors or losses over compute on logarithmic axes: lower is better, and a metric of which
more is better is drawn as what it lacks. The laws that the authors print stand beside ours; of
their numbering we know nothing, so that a figure is called by what it shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stepsight.measures import measure, number
from stepsight.report.run_folder import by
from stepsight.scaling.analysis.words import clean, count
from stepsight.scaling.laws.fits import Fit, fit
from stepsight.scaling.sampling.frontier import ascending

LOSS = "loss"
LEAST = 3  # points of a law
TRAINING, ANSWER = "training FLOPs", "FLOPs per image"


class FigureKind(NamedTuple):
    """A figure of the paper."""

    title: str
    x: str
    says: Literal["law", "ends", "line", "front"]  # what its sentence is about
    lines: str  # what tells its lines apart
    needs: str  # what has to be measured for it


KINDS = {
    "pretraining": FigureKind(
        "Pretraining: loss over compute",
        TRAINING,
        "law",
        "model size",
        "pretraining at three sizes",
    ),
    "finetuning": FigureKind(
        "Fine-tuning: error over compute",
        "fine-tuning FLOPs",
        "law",
        "model size",
        "fine-tuning from pretrained models of several sizes",
    ),
    "carried": FigureKind(
        "What pretraining hands down: error over its compute",
        "pretraining FLOPs",
        "law",
        "model size",
        "the same fine-tuning after more and after less pretraining",
    ),
    "resolution": FigureKind(
        "Resolution: error over compute",
        "fine-tuning FLOPs",
        "ends",
        "resolution",
        "fine-tuning at two resolutions",
    ),
    "schedule": FigureKind(
        "Noise schedule: error over compute",
        "fine-tuning FLOPs",
        "ends",
        "schedule",
        "fine-tuning with two noise schedules",
    ),
    "experts": FigureKind(
        "Experts: dense, and upcycled from it",
        f"{TRAINING}, pretraining included",
        "ends",
        "experts",
        "a dense model, and one upcycled from it",
    ),
    "steps": FigureKind(
        "Steps: error over calls per answer",
        ANSWER,
        "line",
        "model size",
        "a sweep over steps",
    ),
    "members": FigureKind(
        "Members: error over answers merged",
        ANSWER,
        "line",
        "model size",
        "a sweep over members",
    ),
    "budget": FigureKind(
        "One budget: size, steps and members together",
        ANSWER,
        "front",
        "model size",
        "a sweep of several sizes",
    ),
}
# Exponents as printed in the authors' figures, of depth; compute is counted there as
# multiply-accumulates, which leaves an exponent as it is.
PRINTED = {
    ("pretraining", LOSS): -0.0098,
    ("finetuning", LOSS): -0.1382,
    ("finetuning", "abs_rel"): -0.1511,
    ("finetuning", "delta1"): -0.1572,
    ("steps", "abs_rel"): -0.1604,
    ("steps", "delta1"): -0.1651,
    ("members", "abs_rel"): -0.1308,
    ("members", "delta1"): -0.1345,
}


class StudyPoint(NamedTuple):
    """One measured point of a figure."""

    figure: str  # of `KINDS`
    line: str  # what it belongs to: a model size, a schedule
    x: float  # FLOPs, above 0
    y: float  # error or loss, above 0
    lo: float = math.nan  # ends of the interval of y
    hi: float = math.nan
    task: str = ""
    metric: str = LOSS
    at: str = ""  # its setting, such as 4 NFE x 1


@dataclass(frozen=True)
class StudyFigure:
    """The points of one metric of one task in one figure, and what they say."""

    name: str
    task: str
    metric: str
    points: list[StudyPoint]
    law: Fit | None  # of the envelope; None of too few points, comparisons and frontiers

    @property
    def kind(self) -> FigureKind:
        return KINDS[self.name]

    @property
    def slug(self) -> str:
        """Its name in files and links."""
        return "-".join(filter(None, (self.name, self.task, self.metric)))

    @property
    def label(self) -> str:
        """What y is."""
        return error_label(self.metric)

    @property
    def lines(self) -> dict[str, list[StudyPoint]]:
        """The points of each line by x; lines by name, those of a comparison as they come."""
        groups = {line: rows for (line,), rows in by(self.points, "line")}
        ordered = groups if self.kind.says == "ends" else sorted(groups, key=by_number)
        return {line: sorted(groups[line], key=lambda row: row.x) for line in ordered}

    @property
    def envelope(self) -> list[StudyPoint]:
        """The points that no other one beats in both compute and error."""
        return envelope(self.points)

    @property
    def holds(self) -> bool:
        """Whether the law may be read as one."""
        return self.law is not None and self.law.verdict == "law"

    @property
    def printed(self) -> float:
        """The exponent that the authors print; nan where they print none."""
        known = PRINTED.get((self.name, self.metric), math.nan)
        return known if self.task in ("", "depth") else math.nan

    @property
    def sentence(self) -> str:
        """What the figure says, first."""
        says = {"law": _law, "ends": _ends, "line": _along, "front": _front}[self.kind.says]
        return f"{f'{self.task}: ' if self.task else ''}{says(self)}."


def by_number(name: str) -> list[tuple[float, str]]:
    """Sorts names by the numbers in them: 32x2, 96x4, 128x4."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", name)
    return [(float(part), "") if part[0].isdecimal() else (math.inf, part) for part in parts]


def error_label(metric: str) -> str:
    """An error as the axis of a figure says it; a metric of which more is better is what it lacks
    of the best."""
    if metric == LOSS:
        return "loss"
    known = measure(metric)
    return f"1 - {known.label}" if known.better == "higher" else known.title


def error_of(metric: str, value: float) -> float:
    """The error of a value, as the figures count it."""
    known = measure(metric)
    return value if metric == LOSS or known.better == "unknown" else known.error(value)


def figures_of(points: Iterable[StudyPoint], bootstrap: int = 100) -> list[StudyFigure]:
    """The figures that there are points for, in the order of `KINDS`; what has no logarithm is
    left out. bootstrap: resamples of the laws' intervals."""
    kept = [p for p in points if 0 < p.x < math.inf and 0 < p.y < math.inf]
    kept.sort(key=lambda point: list(KINDS).index(point.figure))
    groups = by(kept, "figure", "task", "metric")
    return [
        StudyFigure(name, task, of, rows, _law_of(rows, bootstrap))
        for (name, task, of), rows in groups
    ]


def envelope(points: Sequence[StudyPoint]) -> list[StudyPoint]:
    """The points that no other one beats in both compute and error, by compute."""
    return [points[i] for i in ascending([p.x for p in points], [p.y for p in points])]


def _law_of(points: Sequence[StudyPoint], bootstrap: int) -> Fit | None:
    best = envelope(points)
    few = len({point.x for point in best}) < LEAST
    if few or KINDS[points[0].figure].says not in ("law", "line"):
        return None
    return fit("power", [p.x for p in best], [p.y for p in best], bootstrap=bootstrap)


def _law(figure: StudyFigure) -> str:
    """What ten times the compute takes off, where there is a law."""
    first, last = figure.envelope[0], figure.envelope[-1]
    reach = f"over {math.log10(last.x / first.x):.1f} decades"
    if figure.holds and figure.law is not None:
        off = 1 - 10 ** -figure.law.params["a"]
        loose = "" if clean(figure.law) else "; not a clean law"
        return f"ten times the compute takes {off:.1%} off the {figure.label}, {reach}{loose}"
    worth = figure.law.verdict if figure.law else "too few points"
    change = f"{figure.label} {number(first.y)} to {number(last.y)}"
    return f"{change} {reach} of compute; no law ({worth})"


def _ends(figure: StudyFigure) -> str:
    """How each line ends against the first one, of the compute that both have."""
    lines = list(figure.lines.items())
    if len(lines) < 2:
        return f"{lines[0][0]} alone is measured, {figure.label} {number(lines[0][1][-1].y)}"
    (name, first), *others = lines
    told = []
    for other, rows in others:
        change, cost = rows[-1].y / first[-1].y - 1, rows[-1].x / first[-1].x
        spent = "the same compute" if abs(cost - 1) < 0.02 else f"{cost:.2g} x the compute"
        told.append(f"{other} ends {abs(change):.1%} {_side(change)} {name} for {spent}")
    return f"{figure.label}: {', '.join(told)}"


def _side(change: float) -> str:
    return "above" if change > 0 else "below"


def _along(figure: StudyFigure) -> str:
    """What the best of a line takes off its cheapest point."""
    told = []
    for line, rows in figure.lines.items():
        best = min(rows, key=lambda row: row.y)
        gain = f"{1 - best.y / rows[0].y:.0%} off" if best is not rows[0] else "nothing to gain"
        told.append(f"{line}{' ' if line else ''}{gain}{f' at {best.at}' if best.at else ''}")
    return f"{figure.label}: {', '.join(told)}"


def _front(figure: StudyFigure) -> str:
    """The ends of the frontier, and how many sizes lie on it."""
    front = figure.envelope
    cheapest, best = front[0], front[-1]

    def named(point: StudyPoint) -> str:
        return " ".join(filter(None, (point.line, point.at)))

    there, every = {point.line for point in front}, len(figure.lines)
    sizes = f" {len(there)} of {every} lie on the frontier," if every > 1 else ""
    return (
        f"{figure.label}:{sizes} {named(cheapest)} is cheapest ({number(cheapest.y)}), "
        f"{named(best)} best ({number(best.y)}) for {count(best.x / cheapest.x)} x its compute"
    )
