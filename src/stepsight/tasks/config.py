"""What is known of the tasks without running one (standard library only): their settings, metrics
and protocols. One dataclass per task; `TABLE` names them, and entry points add others.

A new task is one settings class, and one class named by `implementation` that subclasses it: a
task's settings are its configuration. See docs/tasks.md.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from stepsight.metrics.config import Measure, Metrics, parts
from stepsight.plugins import Registry

Calibrated = Literal["intervals", "probability", "answers"]
Counted = Literal["", "classes", "categories"]
Encodings = Mapping[str, Mapping[str, Any]]  # settings by name


@dataclass(frozen=True)
class TaskSettings:
    """What every task has."""

    name: ClassVar[str]
    implementation: ClassVar[str]  # "module:class", imported when chosen
    metrics: ClassVar[Metrics] = {}  # those that no other task declares
    headline: ClassVar[tuple[str, ...]] = ()  # metrics for one line, the main one first
    protocols: ClassVar[str] = ""  # "module:rows"; the first row of the task is its default
    calibrated: ClassVar[Calibrated] = "intervals"
    generative: ClassVar[bool] = False  # answers are drawn from a distribution, always from noise
    counted: ClassVar[Counted] = ""  # of a source, by `classes`
    encodings: ClassVar[Encodings] = {"target": {}}  # to compare
    older: ClassVar[Mapping[str, Any]] = {}  # what checkpoints did that lack a setting
    weight: float = 1.0  # share of the batches
    place: int = 0  # of tasks that one target holds together: which picture of it this one is

    @classmethod
    def in_one_line(cls) -> tuple[str, ...]:
        """The headline; without one, the first metric that is declared."""
        return cls.headline or tuple(cls.metrics)[:1]

    @classmethod
    def for_source(cls, source: Any) -> Self:
        """The usual settings, with room for the classes of a source that has any."""
        count = len(getattr(source, cls.counted)) if cls.counted else 0
        return cls(**({"classes": count} if count else {}))

    @property
    def metric(self) -> str:
        """The main one."""
        return self.in_one_line()[0]

    @property
    def protocol(self) -> str:
        """The protocol that these settings ask for; "": the default of the task."""
        return ""

    @property
    def loses_scale(self) -> bool:
        """Whether predictions are fitted to the truth before they are compared with it."""
        return False


@dataclass(frozen=True)
class DepthSettings(TaskSettings):
    """Depth from one image. Targets are near -1, far +1; in space "disparity" the other way."""

    name = "depth"
    implementation = "stepsight.tasks.depth:Depth"
    metrics = {
        "abs_rel": Measure("AbsRel", "lower"),
        "delta0.5": Measure("δ0.5", "higher"),
        "delta1": Measure("δ1", "higher"),
        "delta2": Measure("δ2", "higher"),
        "delta3": Measure("δ3", "higher"),
        "above_1.25": Measure("above 1.25", "lower"),
        "sq_rel": Measure("SqRel", "lower", "m"),
        "rmse": Measure("RMSE", "lower", "m", power=2),
        "irmse": Measure("iRMSE", "lower", "1/m", power=2),
        "rmse_log": Measure("log RMSE", "lower", power=2),
        "log10": Measure("log10", "lower"),
        "silog": Measure("SILog", "lower", pools=False),
        "silog_half": Measure("SILog (half)", "lower", pools=False),
        "ordering": Measure("order accuracy", "higher"),
        "boundary_f1": Measure("boundary F1", "higher", pools=False),
        "boundary_recall": Measure("boundary recall", "higher", pools=False),
        **{
            f"contour_f1_{n}px": Measure(f"contour F1, {n} px", "higher", pools=False)
            for n in (1, 2, 3)
        },
        "mae_normalised": Measure("MAE, normalised", "lower"),
        "rmse_normalised": Measure("RMSE, normalised", "lower", power=2),
        "flicker": Measure("flicker", "lower"),
        "warped": Measure("warped difference", "lower"),
        "opw": Measure("OPW", "lower", "m"),
    }
    headline = ("abs_rel", "delta1")
    protocols = "stepsight.metrics.protocols.depth:ROWS"
    encodings = {space: {"space": space} for space in ("linear", "log", "inverse")}
    # what the target is linear in: log depth, -1 / depth, depth or 1 / depth
    space: Literal["log", "inverse", "linear", "disparity"] = "log"
    range: Literal["quantile", "metric"] = "quantile"  # per-image 2/98 %, or [low, high] for all
    low: float = 1.3  # metres at near (quantile: only the scale that predictions are shown in)
    high: float = 11.0  # metres at far
    prompt: Literal["none", "valid"] = "none"  # valid: a second condition image, all ones
    clip: bool = False  # samples to [-1, 1] before they are merged, as published models are
    stretch: bool = False  # each answer to the whole of [low, high], as published ones are
    # Of members aligned by the closed form: median, mean, medoid. Others, for comparison:
    # published (Marigold's alignment), and not aligned at all.
    merge_by: Literal[
        "median", "mean", "medoid", "published", "unaligned_median", "unaligned_mean"
    ] = "median"
    # published: longest side, in pixels, at which members are aligned; 0: as they are
    merge_resolution: int = 1024
    # published: what is minimised sums each pair's RMS difference, or is that of all together
    merge_pairs: Literal["each", "together"] = "each"
    merge_range: Literal["unit", "target"] = "unit"  # published: align them in [0, 1] or [-1, 1]

    @property
    def protocol(self) -> str:
        """Metric depth is not aligned; the fit is in log depth where the target is."""
        if self.range == "metric":
            return "depth-metric"
        return "" if self.space == "log" else "depth-affine"

    @property
    def loses_scale(self) -> bool:
        return self.range == "quantile"


FLOW = {
    "epe": Measure("EPE", "lower", "px"),
    "below_1px": Measure("below 1 px", "higher"),
    "below_3px": Measure("below 3 px", "higher"),
    "below_5px": Measure("below 5 px", "higher"),
    "wauc": Measure("WAUC", "higher", "%", best=100.0),
    "fl_all": Measure("Fl-all", "lower"),
}


@dataclass(frozen=True)
class FlowSettings(TaskSettings):
    """Optical flow from two frames, both components in one target."""

    name = "flow"
    implementation = "stepsight.tasks.flow:Flow"
    metrics = {
        **FLOW,
        "epe_units": Measure("EPE, units", "lower"),
        "above_1px": Measure("above 1 px", "lower"),
        **parts({"epe": FLOW["epe"]}, "s0_10", "s10_40", "s40"),
        **parts(FLOW, "matched", "unmatched"),
    }
    headline = ("epe", "fl_all")
    protocols = "stepsight.metrics.protocols.flow:ROWS"
    encodings = {"joint": {}, "separate": {"components": "separate"}}
    older = {"fine_window": 0, "costs": False, "look": False}
    scale: float = 3.0  # pixels (of the working grid, unless `grid` is given) at 1
    grid: tuple[int, int] = (0, 0)  # height and width whose pixels the target is in; 0: working
    components: Literal["joint", "separate"] = "joint"  # separate: u and v, a run each
    cost_volume: bool = True  # parameter-free matching of the two frames as a condition
    radius: int = 4  # of the cost volume, in cells
    stride: int = 2  # pixels per cell
    window: int = 7  # cells over which costs are averaged
    fine_window: int = 3  # of a second volume; 0: none
    costs: bool = True  # also the costs themselves, before the softmax
    look: bool = True  # see anew at every call what the estimate so far leaves over
    look_radius: int = 2  # pixels around the estimate whose costs are seen then
    sharpness: float = 60.0  # of the softmax over displacements
    merge_by: Literal["mean", "median", "medoid"] = "mean"  # of members, in pixels


@dataclass(frozen=True)
class AmodalSettings(TaskSettings):
    """The whole of a partly hidden object, prompted by its visible mask."""

    name = "amodal"
    implementation = "stepsight.tasks.amodal:Amodal"
    metrics = {
        "iou": Measure("IoU", "higher", count="union"),
        "iou_hidden": Measure("hidden IoU", "higher", count="union_hidden"),
        "hidden": Measure("hidden", "neither"),
    }
    headline = ("iou", "iou_hidden")
    protocols = "stepsight.metrics.protocols.segmentation:ROWS"
    calibrated = "probability"
    encodings = {"mask": {}, "rgb": {"target": "rgb"}}
    target: Literal["mask", "rgb"] = "mask"  # rgb: the whole object's picture on white
    threshold: int = 254  # rgb: below it in any channel (0 to 255) a pixel may be the object
    background: Literal["threshold", "border"] = "border"  # rgb: or also cut off from the border
    # mean: of the probabilities; median: of the samples, pixel by pixel, read once
    merge_by: Literal["mean", "vote", "medoid", "median"] = "mean"


@dataclass(frozen=True)
class SemanticSettings(TaskSettings):
    """A class per pixel, in an encoding that decodes exactly."""

    name = "semantic"
    implementation = "stepsight.tasks.semantic:Semantic"
    metrics = {
        "miou": Measure("mIoU", "higher"),
        "pixel_accuracy": Measure("accuracy", "higher"),
        "mean_score": Measure("mean score", "higher"),
        "instance_iou": Measure("iIoU", "higher"),
        "category_iou": Measure("category IoU", "higher"),
        "category_instance_iou": Measure("category iIoU", "higher"),
    }
    headline = ("miou", "pixel_accuracy")
    protocols = "stepsight.metrics.protocols.segmentation:ROWS"
    calibrated = "answers"
    encodings = {code: {"encoding": code} for code in ("onehot", "bits", "palette")}
    counted = "classes"
    classes: int = 7  # label values 0 to classes - 1
    encoding: Literal["onehot", "bits", "palette"] = "onehot"  # palette: colours, for VAEs
    merge_by: Literal["mean", "vote", "medoid"] = "mean"  # mean: of the codes, before decoding


@dataclass(frozen=True)
class PanopticSettings(SemanticSettings):
    """Classes and their instances: scored in predictions of other programs, not trained here."""

    name = "panoptic"
    implementation = "stepsight.tasks.panoptic:Panoptic"
    metrics = {
        "pq": Measure("PQ", "higher"),
        "pq_things": Measure("PQ things", "higher"),
        "pq_stuff": Measure("PQ stuff", "higher"),
        "sq": Measure("SQ", "higher"),
        "rq": Measure("RQ", "higher"),
    }
    headline = ("pq", "sq", "rq")


@dataclass(frozen=True)
class NormalsSettings(TaskSettings):
    """Surface normals in camera coordinates."""

    name = "normals"
    implementation = "stepsight.tasks.normals:Normals"
    metrics = {
        "mean_angle": Measure("mean angle", "lower", "°"),
        "median_angle": Measure("median angle", "lower", "°", pools=False),
        "rmse_angle": Measure("angle RMSE", "lower", "°", power=2),
        "below_5": Measure("below 5°", "higher"),
        "below_7.5": Measure("below 7.5°", "higher"),
        "below_11.25": Measure("below 11.25°", "higher"),
        "below_22.5": Measure("below 22.5°", "higher"),
        "below_30": Measure("below 30°", "higher"),
    }
    headline = ("mean_angle", "below_30")
    protocols = "stepsight.metrics.protocols.other:ROWS"
    encodings = {"vectors": {}}
    # of the target
    axes: Literal["right_down_forward", "right_up_back", "left_up_back"] = "right_down_forward"
    clip: bool = False  # samples to [-1, 1] before they are normalised, as published models are
    # mean: direction of the sum; closest: the member nearest to it, pixel by pixel (Marigold);
    # whole: the member whose angles to the mean of all angles have the least sum (GeoWizard)
    merge_by: Literal["mean", "closest", "whole"] = "mean"


@dataclass(frozen=True)
class ImageSettings(TaskSettings):
    """Generation of images by class: what backbones are pretrained on."""

    name = "image"
    implementation = "stepsight.tasks.image:Image"
    metrics = {"energy": Measure("energy score", "lower")}
    headline = ("energy",)
    protocols = "stepsight.metrics.protocols.other:ROWS"
    generative = True
    encodings = {}
    counted = "categories"
    classes: int = 8  # of pictures
    dropout: float = 0.1  # share of training rows whose class is hidden (null row)
    shown: bool = False  # the network sees the picture as well, and paints it again


@dataclass(frozen=True)
class IntrinsicSettings(TaskSettings):
    """A part of what makes a picture's colours, in [0, 1]. No source has a truth of them."""

    space: Literal["srgb", "linear", "stack"] = "srgb"  # stack: a quantity per channel
    up_to_scale: bool = False  # shown with the brightest at 1
    merge_by: Literal["median", "mean"] = "median"  # of members


@dataclass(frozen=True)
class AlbedoSettings(IntrinsicSettings):
    """The colour of surfaces themselves."""

    name = "albedo"
    implementation = "stepsight.tasks.intrinsic:Albedo"


@dataclass(frozen=True)
class MaterialSettings(IntrinsicSettings):
    """Roughness and metallicity, a channel each."""

    name = "material"
    implementation = "stepsight.tasks.intrinsic:Material"


@dataclass(frozen=True)
class ShadingSettings(IntrinsicSettings):
    """The diffuse light that reaches surfaces."""

    name = "shading"
    implementation = "stepsight.tasks.intrinsic:Shading"


@dataclass(frozen=True)
class ResidualSettings(IntrinsicSettings):
    """What the product of albedo and shading lacks of the picture, such as highlights."""

    name = "residual"
    implementation = "stepsight.tasks.intrinsic:Residual"


TABLE: Registry[type[TaskSettings]] = Registry(
    {
        row.name: row
        for row in (
            DepthSettings,
            FlowSettings,
            AmodalSettings,
            SemanticSettings,
            NormalsSettings,
            ImageSettings,
        )
    },
    "tasks",
    TaskSettings,
)

# Tasks that imported models answer, and that are neither trained nor scored here.
UNSCORED: dict[str, type[TaskSettings]] = {
    row.name: row for row in (AlbedoSettings, MaterialSettings, ShadingSettings, ResidualSettings)
}
KNOWN = ChainMap[str, type[TaskSettings]](TABLE, UNSCORED)  # all that checkpoints may have


def scored_tasks() -> dict[str, type[TaskSettings]]:
    """All tasks that predictions can be scored for, those without a model of ours included."""
    return {**TABLE, PanopticSettings.name: PanopticSettings}
