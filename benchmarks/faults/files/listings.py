"""Specimens of lists, tables, settings and annotations: see `specimens`."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from benchmarks.faults.files import mutation
from benchmarks.faults.files.specimen import HEIGHT, WIDTH, Read, Specimen, encoded, noise, opened
from stepsight import config, data
from stepsight.data.prepare.manifest import Manifest


def listings() -> dict[str, Specimen]:
    return {**_texts(), **_annotations()}


def _texts() -> dict[str, Specimen]:
    picture = encoded(noise(HEIGHT, WIDTH, 3), "PNG")
    depth = encoded(noise(HEIGHT, WIDTH, dtype=np.uint16) | 1, "PNG")
    labels = encoded(noise(HEIGHT, WIDTH) % 3, "PNG")
    made = "\n".join(f"s/rgb_{n}.png s/depth_{n}.png 12" for n in range(3)).encode()
    listed = tuple(
        (f"val/s/{k}_{n}.png", p) for n in range(3) for k, p in (("rgb", picture), ("depth", depth))
    )
    frames = tuple(
        (f"data/{n:05d}{end}", content)
        for n in range(2)
        for end, content in (
            ("_img1.ppm", encoded(noise(HEIGHT, WIDTH, 3), "PPM")),
            ("_img2.ppm", encoded(noise(HEIGHT, WIDTH, 3), "PPM")),
            ("_flow.flo", struct.pack("<4sii", b"PIEH", WIDTH, HEIGHT) + bytes(8 * HEIGHT * WIDTH)),
        )
    )
    voc = (
        ("JPEGImages/a.jpg", encoded(noise(HEIGHT, WIDTH, 3), "JPEG")),
        ("SegmentationClass/a.png", labels),
    )
    columns = "scene_name,camera_name,frame_id,included_in_public_release,split_partition_name"
    rows = [f"ai_001_001,cam_00,{n},True,{s}" for n, s in enumerate(("train", "val", "test"))]
    hypersim = "ai_001_001/images/scene_cam_00_{}/frame.0000.{}"
    scene = (
        (
            hypersim.format("final_preview", "tonemap.jpg"),
            encoded(noise(HEIGHT, WIDTH, 3), "JPEG"),
        ),
        (hypersim.format("geometry_hdf5", "depth_meters.hdf5"), b""),
    )
    lines = [{"image": "a.png", "depth": "d.png", "key": f"k{n}", "split": "val"} for n in range(2)]
    manifest = Manifest("toys", "root", "stepsight", {"a": 1}, {"val": 3}).hash
    record = {"hash": manifest, "name": "toys", "source": "root", "tool": "stepsight"}
    record |= {
        "settings": {"a": 1},
        "counts": {"val": 3},
        "left_out": {},
        "damaged": {},
        "files": {},
    }
    yaml = (
        b"model: {name: split-8}\ntasks:\n  depth: {}\n  flow: {weight: 2.0}\ndata:\n  scenes:\n"
        b"    size: [16, 16]\ntraining:\n  images: 64\n  lr: 1e-4\n  batch: 8\n"
    )
    return {
        "list of depth": Specimen(
            "filename_list_val.txt", made, mutation.text, (opened("hypersim", split="val"),), listed
        ),
        "list of splits": Specimen(
            "FlyingChairs_train_val.txt",
            b"1\n2\n",
            mutation.text,
            (opened("flyingchairs", split="train"),),
            frames,
        ),
        "list of names": Specimen(
            "ImageSets/Segmentation/val.txt", b"a\n", mutation.text, (opened("voc", 2, "val"),), voc
        ),
        "csv": Specimen(
            "metadata_images_split_scene_v1.csv",
            "\n".join([columns, *rows]).encode(),
            mutation.text,
            (lambda path: data.open("hypersim_raw", str(path.parent), split="train"),),
            scene,
        ),
        "json lines": Specimen(
            "list.jsonl",
            "\n".join(map(json.dumps, lines)).encode(),
            mutation.json_lines,
            (opened("folder", list="list.jsonl"),),
            (("a.png", picture), ("d.png", depth)),
        ),
        "manifest": Specimen(
            "manifest.json",
            json.dumps(record).encode(),
            mutation.json_text,
            (lambda path: Manifest.read(path.parent),),
        ),
        "yaml": Specimen("run.yaml", yaml, mutation.text, (lambda path: config.load([str(path)]),)),
    }


def _annotations() -> dict[str, Specimen]:
    jpeg = encoded(noise(HEIGHT, WIDTH, 3), "JPEG")
    polygon = [1, 1, 6, 1, 6, 5, 1, 5]
    run = {"size": [HEIGHT, WIDTH], "counts": [12, 6, HEIGHT * WIDTH - 18]}
    image = {"id": 5, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}
    pairs = [{"point1": [1, 2], "point2": [3, 4], "closer_point": "point1"}]
    regions = [{"segmentation": polygon, "visible_mask": run}, {"segmentation": polygon}]
    cocoa = {"images": [image], "annotations": [{"image_id": 5, "regions": regions}]}
    instance = {"image_id": 5, "category_id": 4, "segmentation": [polygon], "inmodal_seg": run}
    kins = {"images": [image], "annotations": [instance], "categories": []}
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids[..., 0] = 7
    ids[2:, :, 1] = 1
    segments = [{"id": n, "category_id": c, "iscrowd": 0} for n, c in ((7, 1), (263, 2))]
    annotated = [{"image_id": 5, "file_name": "a.png", "segments_info": segments}]
    categories = [{"id": n, "name": f"c{n}", "isthing": n % 2} for n in (1, 2)]
    panoptic = {"images": [image], "annotations": annotated, "categories": categories}

    def json_specimen(name: str, value: Any, read: Read, *others: tuple[str, bytes]) -> Specimen:
        content = json.dumps(value).encode()
        return Specimen(name, content, mutation.json_text, (read,), others)

    return {
        "json of pairs": json_specimen(
            "annotations.json", {"images/a.jpg": pairs}, opened("da2k"), ("images/a.jpg", jpeg)
        ),
        "json of regions": json_specimen(
            "annotations/COCO_amodal_train2014.json",
            cocoa,
            opened("cocoa", 1),
            ("train2014/a.jpg", jpeg),
        ),
        "json of instances": json_specimen(
            "instances_train.json", kins, opened("kins"), ("training/image_2/a.jpg", jpeg)
        ),
        "json of segments": json_specimen(
            "annotations/panoptic_val2017.json",
            panoptic,
            opened("coco_panoptic", 1),
            ("val2017/a.jpg", jpeg),
            ("annotations/panoptic_val2017/a.png", encoded(ids, "PNG")),
        ),
    }
