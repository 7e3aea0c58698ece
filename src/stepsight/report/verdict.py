"""What the numbers of a run say, in words: is it better than trivial, and what to try next.

A run is compared with predictors that know nothing about the image. It beats one when the whole
95 % interval of the ratio lies on the good side of 1; a better value whose interval reaches 1 is
undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from stepsight.errors import command
from stepsight.measures import main_metric, measure, number, spoken
from stepsight.report.run_folder import Row, RunFolder, validation_lines
from stepsight.report.sweep.folder import SweepFolder
from stepsight.results import Result
from stepsight.scaling.sampling.frontier import FrontierCell
from stepsight.scaling.sampling.sweeps import temperature_text
from stepsight.scaling.sampling.wording import count

Outcome = Literal["beaten", "undecided", "not beaten"]

NOTICEABLE = 0.02  # relative change that is worth a recommendation


@dataclass(frozen=True)
class Standing:
    """A score beside one trivial predictor."""

    task: str
    metric: str
    value: float
    baseline: str
    other: float
    outcome: Outcome
    ratio: tuple[float, float, float] | None  # value / other with its interval

    def __str__(self) -> str:
        label = measure(self.metric).label
        return (
            f"{spoken(self.baseline)} ({label} {number(self.value)} against {number(self.other)})"
        )


def standings(result: Result) -> list[Standing]:
    """A result against each of its baselines, by the main metric."""
    metric = result.main
    if metric is None or math.isnan(result.metrics[metric]):
        return []
    return [
        _standing(result, metric, name, values[metric])
        for name, values in result.baselines.items()
        if not math.isnan(values.get(metric, math.nan))
    ]


def _standing(result: Result, metric: str, baseline: str, other: float) -> Standing:
    kind, value = measure(metric), result.metrics[metric]
    measured, ratio = result.ratios.get(baseline), None
    if measured and measured.metric == metric and not math.isnan(measured.lo):
        ratio = (measured.ratio, measured.lo, measured.hi)
    outcome: Outcome = "beaten"
    if not kind.beats(value, other):
        outcome = "not beaten"
    elif ratio:
        sign = 1 if other > 0 else -1  # a quotient of negative values is better the other way round
        sure = all(kind.beats(sign * end, sign) for end in ratio[1:])
        outcome = "beaten" if sure else "undecided"
    return Standing(result.task, metric, value, baseline, other, outcome, ratio)


def first_scores(results: Iterable[Result]) -> list[Result]:
    """One result per task: its first. Those with a label (such as scores on training frames) come
    second to those without."""
    by_task: dict[str, Result] = {}
    for result in sorted(results, key=lambda result: bool(result.label)):
        by_task.setdefault(result.task, result)
    return list(by_task.values())


def final_results(run: RunFolder) -> list[Result]:
    """One result per task: of its evaluation, else its newest validation."""
    newest_first = sorted(run.val, key=lambda row: -row["images_seen"])
    validated = first_scores(map(Result.of, newest_first))
    by_task = {result.task: result for result in (*validated, *first_scores(run.results))}
    return list(by_task.values())


class TaskSentence(NamedTuple):
    """What a reader needs first of a task."""

    task: str
    outcome: Outcome | None  # against the strongest trivial predictor; None without one
    text: str


def sentences(results: Sequence[Result], sweep: SweepFolder) -> list[TaskSentence]:
    """For every task its score, whether it is better than trivial, and what more calls buy."""
    found = []
    for result in results:
        if result.main is None:
            continue
        weakest = min(standings(result), key=_rank, default=None)
        score = ", ".join([_scored(result, result.main), *_compared(weakest)])
        label = [f"Note: {result.label}"] if result.label else []
        outcome = weakest.outcome if weakest else None
        said = f"{'. '.join([score, *_bought(sweep, result.task), *label])}."
        found.append(TaskSentence(result.task, outcome, said))
    return found


def standing_text(results: Iterable[Result]) -> str:
    """How many tasks beat every trivial predictor."""
    compared = [against for result in first_scores(results) if (against := standings(result))]
    if not compared:
        return "no trivial predictor to compare with"
    beaten = sum(all(row.outcome == "beaten" for row in against) for against in compared)
    verb = "beats" if len(compared) == 1 else "beat"
    return f"{beaten} of {count(len(compared), 'task')} {verb} every trivial predictor"


def _scored(result: Result, metric: str) -> str:
    kind, value = measure(metric), number(result.metrics[metric])
    if math.isnan(result.metrics[metric]):
        return f"{kind.label} could not be measured"
    calls = result.nfe * result.members
    spent = f" with {count(calls, 'call')}" if calls else ""
    return f"{kind.label} {value}{f' {kind.unit}' if kind.unit else ''}{spent}"


def _compared(weakest: Standing | None) -> Iterator[str]:
    if weakest is None:
        return
    kind = measure(weakest.metric)
    rival = f"{spoken(weakest.baseline)} ({number(weakest.other)})"
    strongest = f"the best trivial predictor, {rival}"
    own, other = kind.error(weakest.value), kind.error(weakest.other)
    if weakest.outcome != "beaten":
        yield f"{_VERBS[weakest.outcome]} {rival}"
    elif 0 <= own < other:
        yield f"{1 - own / other:.0%} less error than {strongest}"
    else:
        yield f"better than {strongest}"


def _bought(sweep: SweepFolder, task: str) -> Iterator[str]:
    """What calls bought on the way to the last setting whose gain is more than luck."""
    points = sweep.frontier(task) if task in sweep.tasks else []
    if not any(point.paired for point in points):
        return  # intervals of the table alone are too wide to deny a gain by
    first, sure = points[0].cell, [i for i, point in enumerate(points) if point.sure]
    most = max(cell.total_calls for cell in sweep.main(task))
    if not sure:
        if most > first.total_calls:
            than = f"{count(first.total_calls, 'call')}, up to {most}"
            yield f"More than {than}, bring no significant gain"
        return
    best = points[sure[-1]].cell
    gain = f"{1 - best.error / first.error:.1%}" if first.error > 0 else ""
    cut = f"cut the error by {gain}" if gain else "lower the error"
    more = f"; more calls (up to {most}) bring no significant gain"
    yield (
        f"{count(best.total_calls, 'call')} instead of {first.total_calls} {cut}"
        f"{more if best.total_calls < most else ''}"
    )


_VERBS: dict[Outcome, str] = {  # the worst for us first
    "not beaten": "not better than",
    "undecided": "not clearly better than",
    "beaten": "better than",
}


def _rank(standing: Standing) -> tuple[int, float]:
    """The baseline that comes out worst for us first, and among equals the strongest."""
    return list(_VERBS).index(standing.outcome), measure(standing.metric).error(standing.other)


def next_steps(run: RunFolder) -> list[str]:
    """What to try next, each with the number that suggests it; most promising first."""
    evaluate = command("evaluate", "--checkpoint", run.path)
    steps = [*_longer(run), *_waiting(run), *_worsening(run), *_unbeaten(run), *_frontier(run)]
    if not run.results:
        steps.append(f"Not evaluated yet: {evaluate}")
    if not run.sweep.cells:
        steps.append(f"NFE and members not swept yet: {evaluate} --sweep")
    return steps


def _longer(run: RunFolder) -> Iterator[str]:
    fall = loss_fall(run.train)
    if fall > NOTICEABLE:
        yield (
            f"The training loss still fell by {fall:.0%} over the last quarter of the run: "
            f"train longer (--training.images {2 * run.train[-1]['images_seen']})."
        )


def loss_fall(rows: list[Row]) -> float:
    """Relative fall of the loss over the last quarter of the images, from the fitted line.

    The line is fitted to log loss, so single noisy intervals hardly matter; 0 when there are too
    few rows to tell.
    """
    points = np.array([(row["images_seen"], row["loss"]) for row in rows if row["loss"] > 0])
    late = points[points[:, 0] > 0.75 * points[-1, 0]] if len(points) else points
    if len(late) < 4:
        return 0.0
    slope = np.polyfit(late[:, 0], np.log(late[:, 1]), 1)[0]
    return float(1 - np.exp(slope * (late[-1, 0] - late[0, 0])))


def _waiting(run: RunFolder) -> Iterator[str]:
    share = np.mean([row.get("data_share") or 0.0 for row in run.train]) if run.train else 0.0
    if share > 0.2:
        yield f"The model waited for data {share:.0%} of the time: set a cache for the source."


def _worsening(run: RunFolder) -> Iterator[str]:
    for (task, data, _, _), line in validation_lines(run.val):
        metric = main_metric(task, line[0]["metrics"])
        if metric is None or len(line) < 3:
            continue
        kind, values = measure(metric), [row["metrics"][metric] for row in line]
        best, last = min(values, key=kind.error), values[-1]
        if kind.beats(best, last) and abs(last - best) > 0.1 * abs(best):
            yield (
                f"{task} on {data} was better earlier ({kind.label} {number(best)}, now "
                f"{number(last)}): use the best checkpoint, or more varied data."
            )


def _unbeaten(run: RunFolder) -> Iterator[str]:
    falling = loss_fall(run.train) > NOTICEABLE
    for result in final_results(run):
        for standing in standings(result):
            if standing.outcome == "not beaten":
                first = "longer training comes first" if falling else "try a larger model"
                share = f"a larger share of the batches (--tasks.{result.task}.weight)"
                yield f"{result.task} does not beat {standing}: {first}, then {share}."


def _frontier(run: RunFolder) -> Iterator[str]:
    """For every task the frontier's next point: the first that costs more than the setting that was
    scored, unless what it adds may be luck or, without an interval, is hardly noticeable."""
    spent = {result.task: result.nfe * result.members for result in final_results(run)}
    for task in run.sweep.tasks:
        points = run.sweep.frontier(task) if spent.get(task) else []
        dearer = [pair for pair in zip(points, points[1:]) if pair[1].cost > spent[task]]
        for before, point in dearer[:1]:
            if point.sure if point.paired else point.gain > NOTICEABLE:
                yield _offer(run, before, point)


def _offer(run: RunFolder, before: FrontierCell, point: FrontierCell) -> str:
    cell, interval = point.cell, "its interval is not known"
    if math.isfinite(point.gain_lo):
        kind = "" if point.paired else ", not paired"
        interval = f"95 % interval {point.gain_lo:.1%} to {point.gain_hi:.1%}{kind}"
    samplers = {(cell.sampler, cell.spacing, cell.schedule) for cell in run.sweep.cells}
    named = f" --sampler {cell.sampler} --spacing {cell.spacing} --schedule {cell.schedule}"
    named = named if len(samplers) > 1 else ""
    evaluate = command("evaluate", "--checkpoint", run.path)
    return (
        f"{cell.task}: {_setting(point)} improve {measure(cell.metric).label} by {point.gain:.1%} "
        f"({interval}) on {_setting(before)}: {evaluate} --task {cell.task} --nfe {cell.nfe} "
        f"--members {cell.members} --temperature {temperature_text(cell.temperature)} "
        f"--views {cell.views}{named}"
    )


def _setting(point: FrontierCell) -> str:
    """Such as `8 calls (4 x 2, T 1)`."""
    cell, parts = point.cell, point.cell.family.parts
    start = ", ".join(part for part in parts[-2:] if part)
    return f"{count(cell.total_calls, 'call')} ({cell.nfe} x {cell.members}, {start})"
