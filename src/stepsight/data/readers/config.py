"""Settings of the readers (standard library only): one class a data set, and `READERS` names them.

A new data set is one class with its row here, and one file named by `implementation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class SourceSettings:
    """What every source has."""

    name: ClassVar[str]
    implementation: ClassVar[str]  # "module:class", imported when chosen
    weight: float = 1.0  # share of the batches of each task this source can serve


@dataclass(frozen=True)
class FileSettings(SourceSettings):
    """What every source of files on disk has."""

    root: str = ""  # folder; relative to data.root when that is set
    split: str = "train"
    eval_split: str = "val"
    size: tuple[int, int] = (128, 128)  # working height, width
    stream: bool = False  # read the files anew each time, instead of keeping them at working size
    buckets: tuple[str, ...] = ()  # working sizes to train at, "HxW", by aspect ratio; () = size
    crop_scale: float = 1.0  # smallest share of the sides that random crops keep; 1 = no crops
    jitter: float = 0.0  # strength of random contrast, saturation, brightness and gamma


@dataclass(frozen=True)
class HypersimSettings(FileSettings):
    """Hypersim in Marigold's PNG layout with its list file."""

    name: ClassVar[str] = "hypersim"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.hypersim:Hypersim"


@dataclass(frozen=True)
class HypersimRawSettings(FileSettings):
    """Hypersim as published: HDF5, ray distance."""

    name: ClassVar[str] = "hypersim_raw"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.hypersim_raw:HypersimRaw"


@dataclass(frozen=True)
class VirtualKittiSettings(FileSettings):
    """Virtual KITTI 2: depth in centimetres, dense flow."""

    name: ClassVar[str] = "vkitti2"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.vkitti:VirtualKitti"
    camera: Literal["both", "0", "1"] = "both"


@dataclass(frozen=True)
class NyuSettings(FileSettings):
    """NYUv2 extracted to PNG files, Marigold's layout."""

    name: ClassVar[str] = "nyuv2"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.nyu:Nyu"
    eval_split: str = "test"
    depth: Literal["raw", "filled"] = "raw"


@dataclass(frozen=True)
class NyuMatSettings(FileSettings):
    """NYUv2's labelled set as published, one .mat file."""

    name: ClassVar[str] = "nyuv2_mat"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.nyu_mat:NyuMat"
    eval_split: str = "test"
    depth: Literal["raw", "filled"] = "raw"


@dataclass(frozen=True)
class KittiSettings(FileSettings):
    """KITTI depth, Eigen split with the annotated ground truth."""

    name: ClassVar[str] = "kitti"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.kitti:Kitti"
    eval_split: str = "test"


@dataclass(frozen=True)
class Eth3dSettings(FileSettings):
    """ETH3D high-resolution multi-view: raw float32 depth."""

    name: ClassVar[str] = "eth3d"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.eth3d:Eth3d"
    split: str = "all"
    eval_split: str = "all"


@dataclass(frozen=True)
class ScanNetSettings(FileSettings):
    """ScanNet's 800 validation frames, Marigold's layout."""

    name: ClassVar[str] = "scannet"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.scannet:ScanNet"
    split: str = "val"
    eval_split: str = "val"


@dataclass(frozen=True)
class DiodeSettings(FileSettings):
    """DIODE: laser depth with masks, .npy."""

    name: ClassVar[str] = "diode"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.diode:Diode"
    split: str = "val"
    eval_split: str = "val"


@dataclass(frozen=True)
class SintelSettings(FileSettings):
    """MPI-Sintel: flow with occlusions; depth where its archive is there."""

    name: ClassVar[str] = "sintel"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.sintel:Sintel"
    render: Literal["clean", "final"] = "clean"
    eval_split: str = "train"


@dataclass(frozen=True)
class Da2kSettings(FileSettings):
    """DA-2K: which of two points is closer."""

    name: ClassVar[str] = "da2k"
    implementation: ClassVar[str] = "stepsight.data.readers.depth.da2k:Da2k"
    split: str = "all"
    eval_split: str = "all"


@dataclass(frozen=True)
class FlyingChairsSettings(FileSettings):
    """FlyingChairs: PPM pairs, .flo, and the split file."""

    name: ClassVar[str] = "flyingchairs"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.flyingchairs:FlyingChairs"


@dataclass(frozen=True)
class FlyingChairs2Settings(FileSettings):
    """FlyingChairs2: flow both ways, occlusions."""

    name: ClassVar[str] = "flyingchairs2"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.flyingchairs2:FlyingChairs2"
    direction: Literal["forward", "backward", "both"] = "forward"


@dataclass(frozen=True)
class FlyingThingsSettings(FileSettings):
    """FlyingThings3D: flow into future and past, PFM."""

    name: ClassVar[str] = "flyingthings3d"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.flyingthings:FlyingThings"
    render: Literal["clean", "final"] = "clean"
    camera: Literal["left", "right", "both"] = "left"
    direction: Literal["future", "past", "both"] = "both"
    eval_split: str = "test"


@dataclass(frozen=True)
class Kitti2012FlowSettings(FileSettings):
    """KITTI 2012 flow: sparse."""

    name: ClassVar[str] = "kitti2012"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.kitti_flow:Kitti2012"
    occluded: bool = True  # score occluded pixels too (flow_occ), or not (flow_noc)
    eval_split: str = "train"


@dataclass(frozen=True)
class Kitti2015FlowSettings(FileSettings):
    """KITTI 2015 flow: sparse."""

    name: ClassVar[str] = "kitti2015"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.kitti_flow:Kitti2015"
    occluded: bool = True  # score occluded pixels too (flow_occ), or not (flow_noc)
    eval_split: str = "train"


@dataclass(frozen=True)
class Hd1kSettings(FileSettings):
    """HD1K: sparse flow of driving scenes."""

    name: ClassVar[str] = "hd1k"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.hd1k:Hd1k"
    eval_split: str = "train"


@dataclass(frozen=True)
class SpringSettings(FileSettings):
    """Spring: HDF5 flow at twice the image size."""

    name: ClassVar[str] = "spring"
    implementation: ClassVar[str] = "stepsight.data.readers.flow.spring:Spring"
    camera: Literal["left", "right", "both"] = "left"
    direction: Literal["FW", "BW", "both"] = "FW"
    eval_split: str = "train"


@dataclass(frozen=True)
class Pix2GestaltSettings(FileSettings):
    """pix2gestalt's occlusion data: occluded image, visible mask, whole mask."""

    name: ClassVar[str] = "pix2gestalt"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.pix2gestalt:Pix2Gestalt"


@dataclass(frozen=True)
class CocoaSettings(FileSettings):
    """COCO-A: amodal regions drawn over COCO images."""

    name: ClassVar[str] = "cocoa"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.cocoa:Cocoa"


@dataclass(frozen=True)
class BsdsAmodalSettings(FileSettings):
    """BSDS-A: amodal regions drawn over BSDS images."""

    name: ClassVar[str] = "bsdsa"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.cocoa:BsdsAmodal"


@dataclass(frozen=True)
class Mp3dAmodalSettings(FileSettings):
    """MP3D-Amodal: rooms, in COCO-A's annotation format."""

    name: ClassVar[str] = "mp3d_amodal"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.cocoa:Mp3dAmodal"
    eval_split: str = "eval"


@dataclass(frozen=True)
class KinsSettings(FileSettings):
    """KINS: amodal instances on KITTI images."""

    name: ClassVar[str] = "kins"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.kins:Kins"


@dataclass(frozen=True)
class Ade20kSettings(FileSettings):
    """ADE20K SceneParse150."""

    name: ClassVar[str] = "ade20k"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.ade20k:Ade20k"


@dataclass(frozen=True)
class CityscapesSettings(FileSettings):
    """Cityscapes, fine annotations: 19 classes and instances."""

    name: ClassVar[str] = "cityscapes"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.cityscapes:Cityscapes"


@dataclass(frozen=True)
class VocSettings(FileSettings):
    """Pascal VOC 2012 segmentation."""

    name: ClassVar[str] = "voc"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.voc:Voc"


@dataclass(frozen=True)
class CocoPanopticSettings(FileSettings):
    """COCO panoptic: 133 categories with instances."""

    name: ClassVar[str] = "coco_panoptic"
    implementation: ClassVar[str] = "stepsight.data.readers.masks.coco_panoptic:CocoPanoptic"


@dataclass(frozen=True)
class ImageFolderSettings(FileSettings):
    """Pictures sorted into one folder a class, as ImageNet is."""

    name: ClassVar[str] = "imagefolder"
    implementation: ClassVar[str] = "stepsight.data.readers.imagefolder:ImageFolder"


@dataclass(frozen=True)
class FolderSettings(FileSettings):
    """Your own pictures, with depth, flow, labels or masks beside them, or named in a list."""

    name: ClassVar[str] = "folder"
    implementation: ClassVar[str] = "stepsight.data.readers.folder:Folder"
    depth_scale: float = 1000.0  # units of integer depth files a metre
    classes: int = 0  # of label files; 0: the largest label of the set + 1
    list: str = ""  # JSON lines naming the files of each sample, below root; empty: by folders


READERS: tuple[type[FileSettings], ...] = (
    HypersimSettings,
    HypersimRawSettings,
    VirtualKittiSettings,
    NyuSettings,
    NyuMatSettings,
    KittiSettings,
    Eth3dSettings,
    ScanNetSettings,
    DiodeSettings,
    SintelSettings,
    Da2kSettings,
    FlyingChairsSettings,
    FlyingChairs2Settings,
    FlyingThingsSettings,
    Kitti2012FlowSettings,
    Kitti2015FlowSettings,
    Hd1kSettings,
    SpringSettings,
    Pix2GestaltSettings,
    CocoaSettings,
    BsdsAmodalSettings,
    Mp3dAmodalSettings,
    KinsSettings,
    Ade20kSettings,
    CityscapesSettings,
    VocSettings,
    CocoPanopticSettings,
    ImageFolderSettings,
    FolderSettings,
)
