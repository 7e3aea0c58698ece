"""What a run does about its faults: go on, go back, or stop with the way on.

A step whose loss or gradient is no number is not applied; weights, average and optimizer state are
looked through before they are published. What happens then is `training.on_spike`. All processes
see the same loss and the same norm, so that all of them do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from stepsight import checkpoint, distributed
from stepsight.data.mixture import Draw
from stepsight.errors import UserError, command
from stepsight.report.console import Console
from stepsight.training.folder import RunWriter
from stepsight.training.health import all_finite
from stepsight.training.learner import Learner
from stepsight.training.objective import Micro
from stepsight.training.progress import Progress

LOWER = 10  # by what the advice divides the learning rates


@dataclass
class Recovery:
    """The policy of a run."""

    learner: Learner
    progress: Progress
    writer: RunWriter
    console: Console

    def met(self, fault: str, draw: Draw) -> None:
        """After a step that was not applied: go on, go back, or raise UserError with the way on."""
        settings, progress = self.learner.settings, self.progress
        what = f"{fault} at step {progress.step}, task {draw.stream.label}, samples "
        what += f"{list(draw.indices)} of {draw.stream.source}"
        progress.skipped += 1
        progress.skipped_in_row += 1
        if settings.on_spike == "rewind":
            return self._rewind(what)
        if settings.on_spike == "stop":
            self._stop(f"{what}. The update was not applied.", skipping=True)
        if progress.skipped_in_row >= settings.spike_cap:
            self._stop(
                f"{what}; so were {progress.skipped_in_row} steps in a row "
                f"(training.spike_cap). No update was applied since step "
                f"{progress.step - progress.skipped_in_row}."
            )
        self._event("skipped", what)

    @torch.no_grad()
    def unfit(self, batches: Sequence[Micro]) -> str:
        """Why the weights are not to be published: what is not finite of them, their average and
        the optimizer state, or of the errors that they make; "" if they are."""
        learner = self.learner
        named = learner.parts() | {"errors": [learner.errors(batch) for batch in batches]}
        ill = [float(not all_finite(values)) for values in named.values()]
        counts = learner.summed(torch.tensor(ill).to(learner.device))
        wrong = [name for name, count in zip(named, counts.tolist()) if count]
        return f"not finite after step {self.progress.step}: {', '.join(wrong)}" if wrong else ""

    def met_unfit(self, fault: str) -> None:
        """Instead of a checkpoint: go back, or raise UserError with the way on."""
        if self.learner.settings.on_spike == "rewind":
            return self._rewind(fault)
        self._stop(f"{fault}. Nothing was published.")

    def _rewind(self, what: str) -> None:
        """The weights of the last healthy checkpoint, at lower rates; batches are not gone back to:
        those since then, with the offending one, are never learnt from again."""
        settings, progress, path = self.learner.settings, self.progress, self._healthy()
        if path is None:
            self._stop(f"{what}. There is no checkpoint to go back to yet.")
        if progress.rewinds >= settings.spike_cap:
            self._stop(f"{what}, after {progress.rewinds} rewinds (training.spike_cap).")
        saved = checkpoint.read(path, lazy=True)
        self.learner.load(saved)
        progress.rewinds += 1
        progress.skipped_in_row = 0
        progress.rate *= settings.rewind_lr
        self._event("rewound", f"{what}; weights of {path.name}, rates x {progress.rate:g}")
        progress.note("rewound", weights=saved.meta["step"], rate=progress.rate, reason=what)

    def _healthy(self) -> Path | None:
        """The newest checkpoint: nothing else is published."""
        self.learner.saver.wait()

        def newest() -> Path | None:
            saved = checkpoint.read_newest(self.writer.path, self.console.warn)
            return saved.path if saved else None

        return distributed.agreed(newest)

    def _event(self, kind: str, text: str) -> None:
        self.console.warn(f"{kind}: {text}")
        self.writer.log(self.progress.stamp("event") | {"event": kind, "text": text})

    def _stop(self, what: str, skipping: bool = False) -> NoReturn:
        """Raise UserError, with a command that goes on from the last healthy checkpoint."""
        settings, path = self.learner.settings, self._healthy()
        folder = self.writer.path
        anew = ["--run-dir", folder, "--overwrite"]
        anew += ["--init-from", self.learner.parent] if self.learner.parent else []
        start = ["--resume", path] if path else anew
        rates = ["--training.lr", f"{settings.lr / LOWER:g}"]
        rates += ["--training.muon_lr", f"{settings.muon_lr / LOWER:g}"]
        rest = ["--training.on_spike", "skip"] if skipping else rates
        line = command("train", "--config", folder / "config.yaml", *start, *rest)
        raise UserError(f"{what} Go on with: {line}")
