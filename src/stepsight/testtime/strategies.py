"""Beyond averaging: ways to spend the same calls on an image, side by side.

For each task, at the largest NFE and members of a plan: single members, the task's merge at growing
sizes, other merges, the member that each verifier picks, the best member (`oracle`, which knows the
truth: a bound, no strategy), adaptive budgets, and warm starts against cold ones. What picks or
merges is compared with the median of all members, a warm start with a cold one of equal calls.
Written to strategies.csv, whether or not they win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.evaluator import rank
from stepsight.evaluation.jobs import Plan, protocols_of
from stepsight.evaluation.predictors import grid_of, working_at
from stepsight.evaluation.results import write_table
from stepsight.evaluation.views import cropped, view_of
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.adaptive import rounds, standard_error
from stepsight.pipeline.dense import DensePipeline, merge_rules
from stepsight.tasks.base import Task
from stepsight.testtime.outcomes import (
    Outcome,
    adaptive,
    chosen,
    joined,
    oracle,
    stacked,
    table,
)
from stepsight.testtime.verifiers import Candidates, verifiers_for
from stepsight.testtime.warm import can_start_warm, warm_starts
from stepsight.types import Batch, Prediction, Sample

MEDIANS = ("median", "vote")  # the median of labels and masks is their vote
FILE = "strategies.csv"


def run(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    advance: Callable[[int], None] = lambda images: None,
) -> list[dict[str, Any]]:
    """Try every strategy on each task's source (`sources`, by task); write and return the rows.

    The first of several processes does it all. Raises UserError for less than 2 members.
    """
    if rank() != 0:
        return []
    pipeline = pipeline.sampling(sampler=plan.sampler)
    found = []
    for task, source in sources.items():
        trial = Trial(
            pipeline,
            pipeline.task(task),
            protocols_of(pipeline, task, plan.protocols)[0],
            nfe=max(plan.nfe),
            members=max(plan.members),
            size=plan.size,
            seed=plan.seed,
            rows=plan.rows,
        )
        images = range(min(plan.images or len(source), len(source)))
        found += table(task, trial.outcomes(source, images, advance), trial.rule)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / FILE, found)
    return found


@dataclass(frozen=True)
class Trial:
    """A task, and the calls that every strategy may spend on an image: nfe x members."""

    pipeline: DensePipeline
    task: Task
    rule: Protocol
    nfe: int
    members: int
    size: int | None = None  # the longer side at work; None: as the protocol says
    seed: int = 0
    rows: int = 64  # images at a time, and rows (images x members) a forward pass

    def __post_init__(self) -> None:
        if self.members < 2:
            raise UserError("strategies choose among members: give at least 2 (--members 8).")

    @property
    def merge(self) -> str:
        """The task's own rule, by name."""
        return getattr(self.task, "merge_by", "merge")

    @property
    def median(self) -> str:
        """The merge that all choices among members are compared with."""
        known = merge_rules(self.task)
        return next((rule for rule in MEDIANS if rule in known), self.merge)

    @torch.inference_mode()
    def outcomes(
        self, source: Source, images: Sequence[int], advance: Callable[[int], None]
    ) -> list[Outcome]:
        """Every strategy on the images of a source."""
        parts: dict[str, list[Outcome]] = {}
        for batch in _batches(source, images, self.rule, self.rows):
            for one in self._on(batch.to(self.pipeline.device)):
                parts.setdefault(one.name, []).append(one)
            advance(len(batch))
        # A strategy that some images lack the inputs for would be scored on others than the rest.
        found = [joined(part) for part in parts.values() if _images(part) == len(images)]
        return found + list(adaptive([one for one in found if one.errors is not None]))

    def _on(self, batch: Batch) -> Iterator[Outcome]:
        longest = view_of(self.rule).working if self.size is None else self.size
        pipeline = working_at(self.pipeline, self.task.name, longest, grid_of(batch))
        drawn = self._sample(pipeline, batch)
        members = stacked([self._scored(self.task.decode(one), batch) for one in drawn])
        yield from self._merges(drawn, batch)
        first = torch.zeros(len(batch), dtype=torch.long)
        yield self._picked("single", members, first, 1, 1)
        yield from self._verified(pipeline, drawn, members, batch)
        best = oracle(members, self.task.name, self.rule)
        yield self._picked("oracle", members, best, self.members, self.members)
        if can_start_warm(pipeline, self.task, batch):
            yield from self._warm(pipeline, batch)

    def _sample(self, pipeline: DensePipeline, batch: Batch) -> Tensor:
        return pipeline.sample(
            batch,
            self.task.name,
            nfe=self.nfe,
            members=self.members,
            seed=self.seed,
            rows=self.rows,
        )

    def _scored(self, prediction: Prediction, batch: Batch) -> Rows:
        """One row of numbers an image, of a prediction at working size."""
        whole = self.pipeline.finish(prediction, batch)
        rows = self.task.score(whole, batch, self.rule.name)
        return {name: value.cpu() for name, value in rows.items()}

    def _merges(self, drawn: Tensor, batch: Batch) -> Iterator[Outcome]:
        """The task's merge after every round of members, and all members by other rules."""
        for count in rounds(self.members):
            merged = self.task.merge(drawn[:count])
            yield Outcome(
                self.merge if count == self.members else f"{self.merge}_of_{count}",
                self.nfe,
                count,
                self.nfe * count,
                self._scored(merged, batch),
                self.median if self.median != self.merge or count < self.members else "",
                standard_error(merged, count),
            )
        for rule in (self.median, "medoid"):
            if rule in merge_rules(self.task) and rule != self.merge:
                other = replace(self.task, merge_by=rule)  # type: ignore[type-var]
                base = "" if rule == self.median else self.median
                rows = self._scored(other.merge(drawn), batch)
                calls = self.nfe * self.members
                yield Outcome(rule, self.nfe, self.members, calls, rows, base)

    def _verified(
        self, pipeline: DensePipeline, drawn: Tensor, members: Rows, batch: Batch
    ) -> Iterator[Outcome]:
        """The member that each verifier trusts most, and the merge of the half that it does; of
        half of all members, where evidence costs the other half."""
        inputs = pipeline.working(batch, self.task.name)
        for name, verifier in verifiers_for(pipeline, self.task, inputs).items():
            count = self.members // 2 if verifier.doubles else self.members
            given = (pipeline, self.task, inputs, drawn[:count], self.nfe, self.seed, self.rows)
            doubts = verifier.disagreement(Candidates(*given)).cpu()
            spent = 2 * count if verifier.doubles else count
            ranked = doubts.argsort(dim=0, stable=True)  # of equals the first member
            yield self._picked(name, members, ranked[0], count, spent)
            half = drawn[ranked[: max(1, count // 2)], torch.arange(len(batch))]
            rows = self._scored(self.task.merge(half), batch)
            calls = self.nfe * spent
            yield Outcome(f"{name}_half", self.nfe, count, calls, rows, self.median)

    def _picked(self, name: str, members: Rows, picks: Tensor, count: int, spent: int) -> Outcome:
        """One of the first `count` members for each image, at the cost of `spent` members."""
        rows = chosen(members, picks)
        return Outcome(name, self.nfe, count, self.nfe * spent, rows, self.median)

    def _warm(self, pipeline: DensePipeline, batch: Batch) -> Iterator[Outcome]:
        """Warm starts beside cold ones of equal calls; the cold ones beside all calls."""
        options = {"nfe": self.nfe, "members": self.members, "seed": self.seed, "rows": self.rows}
        for one in warm_starts(pipeline, batch, self.task.name, **options):
            rows, calls = self._scored(one.prediction, batch), one.nfe * self.members + one.extra
            yield Outcome(one.name, one.nfe, self.members, calls, rows, one.rival or self.merge)


def _batches(source: Source, images: Sequence[int], rule: Protocol, rows: int) -> Iterator[Batch]:
    """The images as the protocol crops them, in batches of one size."""
    for start in range(0, len(images), rows):
        alike: dict[tuple[int, ...], list[Sample]] = {}
        for sample in source.samples(images[start : start + rows]):
            look = cropped(sample, rule.crop)
            alike.setdefault(tuple(look.image.shape), []).append(look)
        yield from map(collate, alike.values())


def _images(parts: Sequence[Outcome]) -> int:
    return sum(len(part.rows["n"]) for part in parts)
