"""Beyond averaging: strategies for spending the same calls on an image, side by side.

For each task, at the largest NFE and members of a plan: single members, the task's merge at growing
sizes, other merges, the member that each verifier picks, the best member (`oracle`, which knows the
truth: a bound, no strategy), adaptive budgets, and warm starts against cold ones. What picks or
merges is compared with the median of all members, a warm start with a cold start of equal calls.
Written to strategies.csv, whether or not they win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.distributed import phase, rank
from stepsight.errors import UserError
from stepsight.evaluation.jobs import ScoringPlan, protocols_of
from stepsight.evaluation.results import write_table
from stepsight.evaluation.scoring.items import PART, same_size
from stepsight.evaluation.statistics import stacked
from stepsight.evaluation.views import cropped, working_at
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.adaptive import rounds, standard_error
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.working import grid_of
from stepsight.signals import Preempted, requested
from stepsight.tasks.base import Task
from stepsight.tasks.merging import merge_rules
from stepsight.testtime import outcomes
from stepsight.testtime.outcomes import StrategyRow, StrategyScores, chosen
from stepsight.testtime.verifiers import Candidates, verifiers_for
from stepsight.testtime.warm import can_start_warm, warm_starts
from stepsight.types import Batch, Prediction

MEDIANS = ("vote", "median")  # the median of labels and masks is their vote
FILE = "strategies.csv"


def run(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: ScoringPlan,
    advance: Callable[[int], None] = lambda images: None,
    images: Mapping[str, Sequence[int]] | None = None,
) -> list[StrategyRow]:
    """Try every strategy on each task's source (`sources`, by task); write and return the rows.
    images: of these, by task; None: as many as planned.

    The first of several processes does it all. Raises UserError for less than 2 members, and
    Preempted where this process is asked to end: its work is then done again.
    """
    if rank() != 0:
        return []
    pipeline = pipeline.sampling(sampler=plan.sampler)
    rows = []
    for task, source in sources.items():
        trial = Trial(
            pipeline,
            pipeline.task(task),
            protocols_of(pipeline, task, plan.protocols)[0],
            nfe=max(plan.nfe),
            members=max(plan.members),
            size=plan.size,
            seed=plan.seed,
            chunk_size=plan.chunk_size,
        )
        chosen_images = images[task] if images else range(plan.count(source))
        tried = trial.strategies(source, chosen_images, advance)
        rows += outcomes.table(task, tried, trial.protocol)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / FILE, [asdict(row) for row in rows])
    return rows


@dataclass(frozen=True)
class Trial:
    """A task, and the calls that every strategy may spend on an image: nfe x members."""

    pipeline: DensePipeline
    task: Task
    protocol: Protocol
    nfe: int
    members: int
    size: int | None = None  # the longer side at work; None: as the protocol says
    seed: int = 0
    chunk_size: int = 64  # images at a time, and rows (images x members) per forward pass

    def __post_init__(self) -> None:
        if self.members < 2:
            raise UserError("strategies choose among members: give at least 2 (--members 8).")

    @property
    def merge(self) -> str:
        """The task's rule, by name."""
        return getattr(self.task, "merge_by", "merge")

    @property
    def median(self) -> str:
        """The merge that all choices among members are compared with."""
        known = merge_rules(self.task)
        return next((merge for merge in MEDIANS if merge in known), self.merge)

    @property
    def _options(self) -> dict[str, Any]:
        noise: dict[str, Any] = {"seed": self.seed, "chunk_size": self.chunk_size}
        return noise | {"nfe": self.nfe, "members": self.members}

    @torch.inference_mode()
    def strategies(
        self, source: Source, images: Sequence[int], advance: Callable[[int], None]
    ) -> list[StrategyScores]:
        """Every strategy on the images of a source."""
        parts: dict[str, list[StrategyScores]] = {}
        for batch in _batches(source, images, self.protocol, self.chunk_size):
            phase(f"strategies of {self.task.name}", PART)
            if asked := requested():
                raise Preempted(f"{asked}: the sweep is kept, its strategies are begun again.")
            for strategy in self._on(batch.to(self.pipeline.device)):
                parts.setdefault(strategy.name, []).append(strategy)
            advance(len(batch))
        # A strategy that some images lack the inputs for would be scored on others than the rest.
        wholes = map(outcomes.joined, parts.values())
        whole = [strategy for strategy in wholes if len(strategy.rows["n"]) == len(images)]
        merges = [strategy for strategy in whole if strategy.errors is not None]
        return whole + list(outcomes.adaptive(merges))

    def _on(self, batch: Batch) -> Iterator[StrategyScores]:
        sizes = grid_of(batch), self.size, self.protocol.working
        pipeline = working_at(self.pipeline, self.task.name, *sizes)
        drawn = pipeline.sample(batch, self.task.name, **self._options)
        members = stacked([self._scored(self.task.decode(member), batch) for member in drawn])
        yield from self._merges(drawn, batch)
        first = torch.zeros(len(batch), dtype=torch.long)
        yield self._spending("single", 1, 1, chosen(members, first), self.median)
        yield from self._verified(pipeline, drawn, members, batch)
        best = chosen(members, outcomes.oracle(members, self.task.name, self.protocol))
        yield self._spending("oracle", self.members, self.members, best, self.median)
        if can_start_warm(pipeline, self.task, batch):
            yield from self._warm(pipeline, batch)

    def _scored(self, prediction: Prediction, batch: Batch) -> Rows:
        """A row of numbers per image, of a prediction at working size."""
        whole = self.pipeline.finish(prediction, batch)
        rows = self.task.score(whole, batch, self.protocol.name)
        return {name: value.cpu() for name, value in rows.items()}

    def _spending(
        self, name: str, members: int, spent: int, rows: Rows, baseline: str = ""
    ) -> StrategyScores:
        """A strategy with so many members to choose from or to merge, at the cost of `spent`."""
        return StrategyScores(name, self.nfe, members, self.nfe * spent, rows, baseline)

    def _merges(self, drawn: Tensor, batch: Batch) -> Iterator[StrategyScores]:
        """The task's merge after every round of members, and all members by other rules."""
        for count in rounds(self.members):
            merged = self.task.merge(drawn[:count])
            whole = count == self.members
            name = self.merge if whole else f"{self.merge}_of_{count}"
            baseline = "" if whole and self.median == self.merge else self.median
            strategy = self._spending(name, count, count, self._scored(merged, batch), baseline)
            yield replace(strategy, errors=standard_error(merged, count))
        for merge in (self.median, "medoid"):
            if merge in merge_rules(self.task) and merge != self.merge:
                other = replace(self.task, merge_by=merge)  # type: ignore[type-var]
                rows = self._scored(other.merge(drawn), batch)
                baseline = "" if merge == self.median else self.median
                yield self._spending(merge, self.members, self.members, rows, baseline)

    def _verified(
        self, pipeline: DensePipeline, drawn: Tensor, members: Rows, batch: Batch
    ) -> Iterator[StrategyScores]:
        """The member that each verifier trusts most, and the merge of the half that it does; of
        half of all members, where evidence costs the other half."""
        inputs = pipeline.working(batch, self.task.name)
        for name, verifier in verifiers_for(pipeline, self.task, inputs).items():
            count = self.members // 2 if verifier.doubles else self.members
            spending = self.nfe, self.seed, self.chunk_size
            candidates = Candidates(pipeline, self.task, inputs, drawn[:count], *spending)
            doubts = verifier.disagreement(candidates).cpu()
            spent = 2 * count if verifier.doubles else count
            ranked = doubts.argsort(dim=0, stable=True)  # of equals the first member
            yield self._spending(name, count, spent, chosen(members, ranked[0]), self.median)
            half = drawn[ranked[: max(1, count // 2)], torch.arange(len(batch))]
            rows = self._scored(self.task.merge(half), batch)
            yield self._spending(f"{name}_half", count, spent, rows, self.median)

    def _warm(self, pipeline: DensePipeline, batch: Batch) -> Iterator[StrategyScores]:
        """Warm starts beside cold starts of equal calls; cold starts beside all calls."""
        for warm in warm_starts(pipeline, batch, self.task.name, **self._options):
            rows, calls = self._scored(warm.prediction, batch), warm.nfe * self.members + warm.extra
            rival = warm.rival or self.merge
            yield StrategyScores(warm.name, warm.nfe, self.members, calls, rows, rival)


def _batches(
    source: Source, images: Sequence[int], protocol: Protocol, chunk_size: int
) -> Iterator[Batch]:
    """The images as the protocol crops them, in batches that are alike in size."""
    for start in range(0, len(images), chunk_size):
        samples = source.samples(images[start : start + chunk_size])
        crops = [cropped(sample, protocol.crop) for sample in samples]
        for places in same_size(crops):
            yield collate([crops[place] for place in places])
