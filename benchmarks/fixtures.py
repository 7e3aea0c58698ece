"""Small data sets at native size, in the layout and format of the real ones, for timing readers.

What they show is painted by `stepsight.bench.painting`, with holes where the real ones have them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from stepsight.bench.painting import Painter

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
from writers import (  # noqa: E402
    write_dpt,
    write_flo,
    write_ids,
    write_kitti_flow,
    write_pfm,
    write_rgb16,
)

DRIVE, DAY = "2011_09_26_drive_0001_sync", "2011_09_26"


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92)  # of JPEG; other formats have none


def there(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def listed(path: Path, lines: list[str]) -> None:
    there(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def save_hdf5(path: Path, key: str, values: np.ndarray) -> None:
    with h5py.File(there(path), "w") as file:
        file.create_dataset(key, data=values, compression="gzip")


def hypersim(root: Path, p: Painter, count: int) -> None:
    names = [(f"s/rgb_{i:04d}.png", f"s/depth_plane_{i:04d}.png") for i in range(count)]
    for rgb, depth in names:
        save(root / "train" / rgb, p.picture())
        save(root / "train" / depth, (p.depth() * 1000).astype(np.uint16))
    listed(root / "filename_list_train.txt", [" ".join(pair) for pair in names])


def hypersim_raw(root: Path, p: Painter, count: int) -> None:
    images = root / "ai_001_001/images"
    for i in range(count):
        frame = f"frame.{i:04d}"
        geometry = images / "scene_cam_00_geometry_hdf5"
        colour = (p.picture() / 100).astype(np.float16)
        save_hdf5(images / f"scene_cam_00_final_hdf5/{frame}.color.hdf5", "dataset", colour)
        depth, ids = p.depth().astype(np.float16), p.labels(200).astype(np.int16) + 1
        save_hdf5(geometry / f"{frame}.depth_meters.hdf5", "dataset", depth)
        save_hdf5(geometry / f"{frame}.render_entity_id.hdf5", "dataset", ids)


def vkitti2(root: Path, p: Painter, count: int) -> None:
    for i in range(count + 1):
        frames = "Scene02/clone/frames"
        save(root / f"rgb/{frames}/rgb/Camera_0/rgb_{i:05d}.jpg", p.picture())
        depth = (p.depth() * 100).astype(np.uint16)
        save(root / f"depth/{frames}/depth/Camera_0/depth_{i:05d}.png", depth)
        flow = 65535 * torch.cat([p.flow() / 40 + 0.5, torch.ones(1, p.height, p.width)])
        path = there(root / f"forwardFlow/{frames}/forwardFlow/Camera_0/flow_{i:05d}.png")
        write_rgb16(path, flow.int().to(torch.uint16))


def nyuv2(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        depth = (p.depth() * 1000).astype(np.uint16)
        save(root / f"train/kitchen_0001/rgb_{i:04d}.png", p.picture())
        save(root / f"train/kitchen_0001/depth_{i:04d}.png", np.where(p.smooth() < 0.75, depth, 0))
        save(root / f"train/kitchen_0001/filled_{i:04d}.png", depth)


def nyuv2_mat(root: Path, p: Painter, count: int) -> None:
    with h5py.File(there(root / "nyu_depth_v2_labeled.mat"), "w") as file:
        file["images"] = np.stack([p.picture().transpose(2, 1, 0) for _ in range(count)])
        file["depths"] = file["rawDepths"] = np.stack([p.depth().T for _ in range(count)])
    savemat(root / "splits.mat", {"trainNdxs": np.arange(1, count + 1), "testNdxs": [1]})


def kitti(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        save(root / f"{DAY}/{DRIVE}/image_02/data/{i:010d}.png", p.picture())
        depth = np.where(p.sparse(0.2), p.depth() * 256, 0).astype(np.uint16)
        truth = f"data_depth_annotated/train/{DRIVE}/proj_depth/groundtruth/image_02"
        save(root / f"{truth}/{i:010d}.png", depth)


def eth3d(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        save(root / f"rgb/a/images/dslr_images/{i}.JPG", p.picture())
        depth = there(root / f"depth/a_dslr_depth/a/ground_truth_depth/dslr_images/{i}.JPG")
        np.where(p.sparse(0.5), p.depth(), np.inf).astype("<f4").tofile(depth)


def scannet(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        save(root / f"scene0000_00/color/{i:06d}.jpg", p.picture())
        save(root / f"scene0000_00/depth/{i:06d}.png", (p.depth() * 1000).astype(np.uint16))


def diode(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        stem = root / f"indoors/scene_00000/scan_00000/{i:05d}"
        save(stem.with_suffix(".png"), p.picture())
        np.save(stem.with_name(f"{stem.name}_depth.npy"), p.depth()[..., None])
        np.save(stem.with_name(f"{stem.name}_depth_mask.npy"), p.sparse(0.9).astype(np.float32))


def sintel(root: Path, p: Painter, count: int) -> None:
    for i in range(1, count + 2):
        frame = f"a/frame_{i:04d}"
        save(root / f"training/clean/{frame}.png", p.picture())
        write_flo(there(root / f"training/flow/{frame}.flo"), p.flow())
        write_dpt(there(root / f"training/depth/{frame}.dpt"), torch.from_numpy(p.depth())[None])
        for kind in ("occlusions", "invalid"):
            save(root / f"training/{kind}/{frame}.png", 255 * (p.labels(8) == 0).astype(np.uint8))


def flyingchairs(root: Path, p: Painter, count: int) -> None:
    for i in range(1, count + 1):
        for k in (1, 2):
            save(root / f"data/{i:05d}_img{k}.ppm", p.picture())
        write_flo(root / f"data/{i:05d}_flow.flo", p.flow())
    listed(root / "FlyingChairs_train_val.txt", ["1"] * count)


def flyingthings3d(root: Path, p: Painter, count: int) -> None:
    for i in range(count + 1):
        save(root / f"frames_cleanpass/TRAIN/A/0000/left/{i:04d}.png", p.picture())
        flow = torch.cat([p.flow(), torch.zeros(1, p.height, p.width)])
        for way in ("future", "past"):
            name = f"into_{way}/left/OpticalFlowInto{way.title()}_{i:04d}_L.pfm"
            write_pfm(there(root / "optical_flow/TRAIN/A/0000" / name), flow)


def kitti2015(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        for k in (10, 11):
            save(root / f"training/image_2/{i:06d}_{k}.png", p.picture())
        valid = torch.from_numpy(p.sparse(0.2))[None]
        for kind in ("flow_occ", "flow_noc"):
            path = there(root / f"training/{kind}/{i:06d}_10.png")
            write_kitti_flow(path, p.flow() * valid, valid)


def spring(root: Path, p: Painter, count: int) -> None:
    for i in range(1, count + 2):
        save(root / f"train/0001/frame_left/frame_left_{i:04d}.png", p.picture())
        flow = p.flow().permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
        save_hdf5(root / f"train/0001/flow_FW_left/flow_FW_left_{i:04d}.flo5", "flow", flow)


def pix2gestalt(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        whole = 255 * (p.smooth() > 0.5).astype(np.uint8)
        save(root / f"occlusion/{i}_occlusion.png", p.picture())
        save(root / f"whole/{i}_whole.png", np.where(whole[..., None] > 0, p.picture(), 255))
        save(root / f"whole_mask/{i}_whole_mask.png", whole)
        save(root / f"visible_object_mask/{i}_visible_mask.png", whole)


def ade20k(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        save(root / f"images/training/ADE_train_{i:08d}.jpg", p.picture())
        save(root / f"annotations/training/ADE_train_{i:08d}.png", p.labels(151))


def cityscapes(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        name = f"train/a/a_{i:06d}_000019"
        save(root / f"leftImg8bit/{name}_leftImg8bit.png", p.picture())
        labels = p.labels(34)
        save(root / f"gtFine/{name}_gtFine_labelIds.png", labels)
        instances = np.where(labels > 23, labels.astype(np.uint16) * 1000, labels)
        save(root / f"gtFine/{name}_gtFine_instanceIds.png", instances.astype(np.uint16))


def voc(root: Path, p: Painter, count: int) -> None:
    for i in range(count):
        save(root / f"JPEGImages/{i}.jpg", p.picture())
        palette = Image.fromarray(p.labels(21)).convert("P")
        palette.save(there(root / f"SegmentationClass/{i}.png"))
    listed(root / "ImageSets/Segmentation/train.txt", [str(i) for i in range(count)])


def coco_panoptic(root: Path, p: Painter, count: int) -> None:
    annotations = []
    for i in range(count):
        ids = p.labels(20).astype(np.int64) + 1
        save(root / f"train2017/{i}.jpg", p.picture())
        path = there(root / f"annotations/panoptic_train2017/{i}.png")
        write_ids(path, torch.from_numpy(ids)[None])
        segments = [{"id": int(k), "category_id": 1, "iscrowd": 0} for k in np.unique(ids)]
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(count)]
    images = [one | {"height": p.height, "width": p.width} for one in images]
    table = {"images": images, "annotations": annotations}
    table["categories"] = [{"id": 1, "name": "person", "isthing": 1}]
    (root / "annotations/panoptic_train2017.json").write_text(json.dumps(table))


class Fixture(NamedTuple):
    """How a data set is made, the size of its images, and the split that holds them."""

    write: Callable[[Path, Painter, int], None]
    height: int
    width: int
    split: str = "train"


FIXTURES = {
    "hypersim": Fixture(hypersim, 768, 1024),
    "hypersim_raw": Fixture(hypersim_raw, 768, 1024, "all"),
    "vkitti2": Fixture(vkitti2, 375, 1242),
    "nyuv2": Fixture(nyuv2, 480, 640),
    "nyuv2_mat": Fixture(nyuv2_mat, 480, 640),
    "kitti": Fixture(kitti, 375, 1242),
    "eth3d": Fixture(eth3d, 4032, 6048, "all"),
    "scannet": Fixture(scannet, 480, 640, "all"),
    "diode": Fixture(diode, 768, 1024, "all"),
    "sintel": Fixture(sintel, 436, 1024),
    "flyingchairs": Fixture(flyingchairs, 384, 512),
    "flyingthings3d": Fixture(flyingthings3d, 540, 960),
    "kitti2015": Fixture(kitti2015, 375, 1242),
    "spring": Fixture(spring, 1080, 1920),
    "pix2gestalt": Fixture(pix2gestalt, 256, 256, "all"),
    "ade20k": Fixture(ade20k, 512, 683),
    "cityscapes": Fixture(cityscapes, 1024, 2048),
    "voc": Fixture(voc, 375, 500),
    "coco_panoptic": Fixture(coco_panoptic, 427, 640),
}
