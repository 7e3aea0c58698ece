"""Settings of the tasks (standard library only). One dataclass a task; `TABLE` names them.

A new task is one settings class with its row here, and one file named by `implementation` that
subclasses it: a task's settings are its configuration. See docs/tasks.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class TaskSettings:
    """What every task has."""

    name: ClassVar[str]
    implementation: ClassVar[str]  # "module:class", imported when chosen
    weight: float = 1.0  # share of the batches


@dataclass(frozen=True)
class DepthSettings(TaskSettings):
    """Depth from one image. Targets are near -1, far +1."""

    name: ClassVar[str] = "depth"
    implementation: ClassVar[str] = "stepsight.tasks.depth:Depth"
    space: Literal["log", "inverse", "linear"] = "log"
    range: Literal["quantile", "metric"] = "quantile"  # per-image 2/98 %, or [low, high] for all
    low: float = 1.3  # metres at -1 (quantile: only the scale that predictions are shown in)
    high: float = 11.0  # metres at +1
    prompt: Literal["none", "valid"] = "none"  # valid: a second condition image, all ones
    # Of members aligned by the closed form: median, mean, medoid. Others, for comparison:
    # published (Marigold's alignment), and not aligned at all.
    merge_by: Literal[
        "median", "mean", "medoid", "published", "unaligned_median", "unaligned_mean"
    ] = "median"


@dataclass(frozen=True)
class FlowSettings(TaskSettings):
    """Optical flow from two frames, both components in one target."""

    name: ClassVar[str] = "flow"
    implementation: ClassVar[str] = "stepsight.tasks.flow:Flow"
    scale: float = 3.0  # pixels (of the working grid, unless `grid` is given) at 1
    grid: tuple[int, int] = (0, 0)  # height and width whose pixels the target is in; 0: working
    components: Literal["joint", "separate"] = "joint"  # separate: u and v, a run each
    cost_volume: bool = True  # parameter-free matching of the two frames as a condition
    radius: int = 4  # of the cost volume, in cells
    stride: int = 2  # pixels a cell
    window: int = 7  # cells over which costs are averaged
    fine_window: int = 3  # of a second volume; 0: none
    costs: bool = True  # also the costs themselves, before the softmax
    look: bool = True  # see anew at every call what the estimate so far leaves over
    look_radius: int = 2  # pixels around the estimate whose costs are seen then
    sharpness: float = 60.0  # of the softmax over displacements
    merge_by: Literal["mean", "median", "medoid"] = "mean"


@dataclass(frozen=True)
class AmodalSettings(TaskSettings):
    """The whole of a partly hidden object, prompted by its visible mask."""

    name: ClassVar[str] = "amodal"
    implementation: ClassVar[str] = "stepsight.tasks.amodal:Amodal"
    target: Literal["mask", "rgb"] = "mask"  # rgb: the whole object's picture on white
    threshold: int = 254  # rgb: below it in any channel (0 to 255) a pixel may be the object
    background: Literal["threshold", "border"] = "border"  # rgb: or also cut off from the border
    merge_by: Literal["mean", "vote", "medoid"] = "mean"  # mean: of the probabilities


@dataclass(frozen=True)
class SemanticSettings(TaskSettings):
    """A class a pixel, in an encoding that decodes exactly."""

    name: ClassVar[str] = "semantic"
    implementation: ClassVar[str] = "stepsight.tasks.semantic:Semantic"
    classes: int = 7
    encoding: Literal["onehot", "bits", "palette"] = "onehot"  # palette: colours, for VAEs
    merge_by: Literal["mean", "vote", "medoid"] = "mean"  # mean: of the codes, before decoding


@dataclass(frozen=True)
class NormalsSettings(TaskSettings):
    """Surface normals in camera coordinates."""

    name: ClassVar[str] = "normals"
    implementation: ClassVar[str] = "stepsight.tasks.normals:Normals"
    axes: Literal["right_down_forward", "right_up_back"] = "right_down_forward"  # of the target


@dataclass(frozen=True)
class ImageSettings(TaskSettings):
    """Generation of images by class: what backbones are pretrained on."""

    name: ClassVar[str] = "image"
    implementation: ClassVar[str] = "stepsight.tasks.image:Image"
    classes: int = 8
    dropout: float = 0.1  # share of training rows whose class is hidden (null row)


TABLE: dict[str, type[TaskSettings]] = {
    row.name: row
    for row in (
        DepthSettings,
        FlowSettings,
        AmodalSettings,
        SemanticSettings,
        NormalsSettings,
        ImageSettings,
    )
}
