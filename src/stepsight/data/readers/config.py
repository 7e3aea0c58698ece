"""Settings of the readers (standard library only): one class per data set. `READERS` are all.

A new data set is one class here, and one file named by `implementation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, dataclass_transform


@dataclass(frozen=True)
class SourceSettings:
    """What every source has."""

    name: ClassVar[str]
    implementation: ClassVar[str]  # "module:class", imported when chosen
    weight: float = 1.0  # share of the batches of each task this source can serve


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class FileSettings(SourceSettings):
    """What every source of files on disk has.

    Attributes:
        split: that is trained on
        eval_split: for validation and evaluation
    """

    root: str = ""  # folder; relative to data.root when that is set
    split: str = "train"
    eval_split: str = "val"
    size: tuple[int, int] = (128, 128)  # working height, width
    stream: bool = False  # read the files anew each time, instead of keeping them at working size
    buckets: tuple[str, ...] = ()  # working sizes to train at, "HxW", by aspect ratio; () = size
    crop_scale: float = 1.0  # smallest share of the sides that random crops keep; 1 = no crops
    jitter: float = 0.0  # strength of random contrast, saturation, brightness and gamma

    def __init_subclass__(cls, name: str = "", module: str = "") -> None:
        """The settings of reader `name`, a class of that `module` of this room: `XSettings` of `X`,
        made a frozen dataclass. Those of other packages are decorated and say both themselves."""
        if name:
            reader = cls.__name__.removesuffix("Settings")
            cls.name, cls.implementation = name, f"stepsight.data.readers.{module}:{reader}"
            dataclass(frozen=True)(cls)


class HypersimSettings(FileSettings, name="hypersim", module="depth.hypersim"):
    """Hypersim in Marigold's PNG layout with its list file."""


class HypersimRawSettings(FileSettings, name="hypersim_raw", module="depth.hypersim_raw"):
    """Hypersim as published: HDF5, ray distance."""


class VirtualKittiSettings(FileSettings, name="vkitti2", module="flow.vkitti"):
    """Virtual KITTI 2: depth in centimetres, dense flow."""

    camera: Literal["both", "0", "1"] = "both"  # whose frames: left (0), right (1) or both


class NyuSettings(FileSettings, name="nyuv2", module="depth.nyu"):
    """NYUv2 extracted to PNG files, Marigold's layout."""

    eval_split: str = "test"
    depth: Literal["raw", "filled"] = "raw"  # as measured, or with holes filled in


class NyuMatSettings(FileSettings, name="nyuv2_mat", module="depth.nyu_mat"):
    """NYUv2's labelled set as published, one .mat file."""

    eval_split: str = "test"
    depth: Literal["raw", "filled"] = "raw"  # as measured, or with holes filled in


class KittiSettings(FileSettings, name="kitti", module="depth.kitti"):
    """KITTI depth, Eigen split with the annotated ground truth."""

    eval_split: str = "test"


class Eth3dSettings(FileSettings, name="eth3d", module="depth.eth3d"):
    """ETH3D high-resolution multi-view: raw float32 depth."""

    split: str = "all"
    eval_split: str = "all"


class ScanNetSettings(FileSettings, name="scannet", module="depth.scannet"):
    """ScanNet's 800 validation frames, Marigold's layout."""

    split: str = "val"
    eval_split: str = "val"


class DiodeSettings(FileSettings, name="diode", module="depth.diode"):
    """DIODE: laser depth with masks, .npy."""

    split: str = "val"
    eval_split: str = "val"


class IbimsSettings(FileSettings, name="ibims", module="depth.ibims"):
    """iBims-1: rooms with laser depth, .mat."""

    split: str = "all"
    eval_split: str = "all"


class DdadSettings(FileSettings, name="ddad", module="depth.ddad"):
    """DDAD: driving with laser points laid over the pictures."""

    camera: Literal["01", "05", "06", "07", "08", "09", "all"] = "01"  # whose frames; 01: front


class SunRgbdSettings(FileSettings, name="sunrgbd", module="depth.sunrgbd"):
    """SUN RGB-D: rooms by four depth cameras, 16-bit depth with rotated bits."""

    eval_split: str = "test"
    depth: Literal["filled", "raw"] = "filled"  # holes filled from other frames, or as measured


class TumRgbdSettings(FileSettings, name="tum", module="depth.tum"):
    """TUM RGB-D: Kinect sequences, pictures and depth paired by time."""

    split: str = "all"
    eval_split: str = "all"


class ArkitScenesSettings(FileSettings, name="arkitscenes", module="depth.arkitscenes"):
    """ARKitScenes: rooms filmed with an iPad."""

    depth: Literal["highres", "lowres"] = "highres"  # of a scanner, or of the iPad


class DsineNyuSettings(FileSettings, name="dsine_nyuv2", module="dsine"):
    """Normals of NYUv2, in DSINE's evaluation folder."""

    eval_split: str = "test"


class DsineScanNetSettings(FileSettings, name="dsine_scannet", module="dsine"):
    """Normals of 300 ScanNet frames, in DSINE's evaluation folder."""

    split: str = "test"
    eval_split: str = "test"


class DsineIbimsSettings(FileSettings, name="dsine_ibims", module="dsine"):
    """Normals of iBims-1, in DSINE's evaluation folder."""

    split: str = "all"
    eval_split: str = "all"


class DsineSintelSettings(FileSettings, name="dsine_sintel", module="dsine"):
    """Normals of MPI-Sintel, in DSINE's evaluation folder."""

    split: str = "all"
    eval_split: str = "all"


class SintelSettings(FileSettings, name="sintel", module="flow.sintel"):
    """MPI-Sintel: flow with occlusions; depth where its archive is there."""

    render: Literal["clean", "final"] = "clean"  # clean, or final with blur and haze
    eval_split: str = "train"


class Da2kSettings(FileSettings, name="da2k", module="depth.da2k"):
    """DA-2K: which of two points is closer."""

    split: str = "all"
    eval_split: str = "all"


class FlyingChairsSettings(FileSettings, name="flyingchairs", module="flow.flyingchairs"):
    """FlyingChairs: PPM pairs, .flo, and the split file."""


class FlyingChairs2Settings(FileSettings, name="flyingchairs2", module="flow.flyingchairs2"):
    """FlyingChairs2: flow both ways, occlusions."""

    direction: Literal["forward", "backward", "both"] = "forward"  # of the flow


class FlyingThingsSettings(FileSettings, name="flyingthings3d", module="flow.flyingthings"):
    """FlyingThings3D: flow into future and past, PFM."""

    render: Literal["clean", "final"] = "clean"  # clean, or final with blur and haze
    camera: Literal["left", "right", "both"] = "left"  # whose frames
    direction: Literal["future", "past", "both"] = "both"  # of the flow, in time
    eval_split: str = "test"


class Kitti2012Settings(FileSettings, name="kitti2012", module="flow.kitti_flow"):
    """KITTI 2012 flow: sparse."""

    occluded: bool = True  # score occluded pixels too (flow_occ), or not (flow_noc)
    eval_split: str = "train"


class Kitti2015Settings(FileSettings, name="kitti2015", module="flow.kitti_flow"):
    """KITTI 2015 flow: sparse."""

    occluded: bool = True  # score occluded pixels too (flow_occ), or not (flow_noc)
    eval_split: str = "train"


class Hd1kSettings(FileSettings, name="hd1k", module="flow.hd1k"):
    """HD1K: sparse flow of driving scenes."""

    eval_split: str = "train"


class SpringSettings(FileSettings, name="spring", module="flow.spring"):
    """Spring: HDF5 flow at twice the image size."""

    camera: Literal["left", "right", "both"] = "left"  # whose frames
    direction: Literal["FW", "BW", "both"] = "FW"  # of the flow, in time
    eval_split: str = "train"


class TartanAirSettings(FileSettings, name="tartanair", module="flow.tartanair"):
    """TartanAir, first and second version: rendered flights, depth and flow."""

    camera: Literal["left", "right", "both"] = "left"  # whose frames; only the left has flow
    split: str = "all"
    eval_split: str = "hard"


class Pix2GestaltSettings(FileSettings, name="pix2gestalt", module="masks.pix2gestalt"):
    """pix2gestalt's occlusion data: occluded image, visible mask, whole mask."""


class CocoaSettings(FileSettings, name="cocoa", module="masks.cocoa"):
    """COCO-A: amodal regions drawn over COCO images."""


class BsdsAmodalSettings(FileSettings, name="bsdsa", module="masks.cocoa"):
    """BSDS-A: amodal regions drawn over BSDS images."""


class Mp3dAmodalSettings(FileSettings, name="mp3d_amodal", module="masks.cocoa"):
    """MP3D-Amodal: rooms, in COCO-A's annotation format."""

    eval_split: str = "eval"


class KinsSettings(FileSettings, name="kins", module="masks.kins"):
    """KINS: amodal instances on KITTI images."""


class Ade20kSettings(FileSettings, name="ade20k", module="masks.ade20k"):
    """ADE20K SceneParse150."""


class CityscapesSettings(FileSettings, name="cityscapes", module="masks.cityscapes"):
    """Cityscapes, fine annotations: 19 classes and instances."""


class VocSettings(FileSettings, name="voc", module="masks.voc"):
    """Pascal VOC 2012 segmentation."""


class CocoPanopticSettings(FileSettings, name="coco_panoptic", module="masks.coco_panoptic"):
    """COCO panoptic: 133 categories with instances."""


class ImageFolderSettings(FileSettings, name="imagefolder", module="imagefolder"):
    """Pictures sorted into one folder per class, as ImageNet is."""


class FolderSettings(FileSettings, name="folder", module="folder"):
    """Your own pictures, with depth, flow, labels or masks beside them, or named in a list."""

    depth_scale: float = 1000.0  # units per metre in integer depth files
    depth_unit: str = ""  # of stored depth: m, cm, mm, 1/N metres, disparity (depth = 1/v), or
    # K/disparity (depth = K/v, K focal length x baseline); "": depth_scale, floats in metres
    flow_unit: Literal["pixels", "normalised"] = "pixels"  # or shares of the width and height
    invalid: tuple[float, ...] = ()  # stored values that are no value, besides 0, NaN and infinity
    mask_inside: str = ""  # what is inside in a mask: bright, dark, nonzero, alpha, or one stored
    # value; "": the one meaning that a file has, or it is refused
    class_codes: str = ""  # of label files; "": value = class, 255 none; "1..": 0 none, classes
    # from 1; cityscapes: its labelIds; or a JSON file of [{"name", "id" or "color"}]
    classes: int = 0  # of label files; 0: the largest label of the set + 1
    list: str = ""  # JSON lines naming the files of each sample, below root; empty: by folders
    holdout: float = 0.1  # share that is not trained on but evaluated, where no splits are named


READERS = tuple(FileSettings.__subclasses__())  # all of the above, in that order
