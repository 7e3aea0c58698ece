"""What is asked on the page: what was dropped and chosen, checked before the model is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepsight.diffusion.config import spendable
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.saving import FORMATS
from stepsight.tasks.base import Task

FEW = 8  # calls that a film strip reaches at least
OTHERS = {"second": "the second frame", "modal": "the visible part of the object, white on black"}


@dataclass(frozen=True)
class DemoQuestion:
    """What is asked. Files lie where the browser's were put; None and "" leave a choice to the run
    (`DensePipeline.setting`). fov: of the camera, horizontal, in degrees, for points."""

    task: str
    picture: Path | None = None
    second: Path | None = None
    mask: Path | None = None
    film: Path | None = None
    class_id: int | None = None
    nfe: int | None = None
    members: int | None = None
    budget: str = ""
    size: int | None = None
    fov: float | None = None
    formats: tuple[str, ...] = ("npy",)
    strip: bool = True  # what other numbers of calls answer

    def check(self, task: Task) -> None:
        """Raise UserError for a file that the task needs and the page has not got."""
        if self.film:
            return
        if not self.picture:
            raise UserError("Drop a picture or a film first.")
        for field, file in {"second": self.second, "modal": self.mask}.items():
            if field in task.required_inputs and not file:
                raise UserError(f"{task.name} also reads {OTHERS[field]}: drop that as well.")

    def worded(self, error: Exception) -> str:
        """What went wrong, with what was dropped by its name alone, not by where it was put."""
        words = str(error)
        for file in filter(None, (self.picture, self.second, self.mask, self.film)):
            words = words.replace(str(file), file.name)
        return words

    def beside(self, task: Task) -> dict[str, Any]:
        """What the pipeline is given besides the picture."""
        given: dict[str, Any] = {"size": self.size or None}
        if "second" in task.required_inputs:
            given["second"] = self.second
        if "modal" in task.required_inputs:
            given["mask"] = self.mask
        if generates(task):
            given["class_id"] = "null" if self.class_id is None else self.class_id
        return given


def generates(task: Task) -> bool:
    """Whether a class is chosen for the task."""
    return task.label_count > task.splits


def formats_of(task: Task) -> list[str]:
    """The formats that a task's values can be downloaded in."""
    return [name for name, form in FORMATS.items() if name != "picture" and not form.refuses(task)]


def steps_of(pipeline: DensePipeline, nfe: int) -> list[int]:
    """The numbers of calls of a film strip about `nfe`: powers of two, at least up to 8, as far as
    the sampler can spend them; `nfe` alone where the number of calls is fixed."""
    walk = pipeline.diffusion.settings
    if walk.objective == "end_to_end" or walk.spacing == "custom":
        return [nfe]
    powers = [1 << power for power in range(max(nfe, FEW).bit_length())]
    return sorted({n for n in powers if spendable(walk.sampler, n)} | {nfe})
