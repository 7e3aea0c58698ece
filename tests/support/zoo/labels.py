"""Trees of label maps in the numbers and colours that people use, and of outlines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.files import npy, place, png
from zoo.world import Expected, same, tree, worlds

Write = Callable[[Path, np.ndarray], Any]
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [220, 20, 60]], np.uint8)


def labels(root: Path, write: Write, truth: Callable, suffix=".png", **more) -> Expected:
    """Label maps, uint8 "h w" as `write` stores them, and what they stand for."""
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"labels/{number}{suffix}", one.labels)
    return Expected({"labels": [truth(w.labels) for w in made]}, [w.picture for w in made], **more)


def edged(values: np.ndarray) -> np.ndarray:
    return np.where(np.indices(values.shape)[0] == 0, 255, values).astype(np.uint8)


@tree
def labels_with_none(root):
    return labels(root, lambda p, v: png(p, edged(v)), edged, says=(r"255 no class",))


@tree
def labels_from_0(root):
    return labels(root, png, same, says=(r"255 does not occur.*--classes 1\.\.",))


@tree
def labels_with_a_palette(root):
    return labels(root, lambda p, v: png(p, edged(v), np.arange(768).reshape(256, 3) % 256), edged)


@tree
def labels_as_an_array(root):
    return labels(root, lambda p, v: npy(p, v.astype(np.int64)), same, ".npy")


@tree
def labels_from_1(root):
    return labels(root, png, lambda v: np.where(v == 0, 255, v - 1), answers={"classes": "1.."})


@tree
def labels_of_ade20k(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"ADEChallengeData2016/images/training/{number}.png", one.picture)
        png(root / f"ADEChallengeData2016/annotations/training/{number}.png", one.labels * 75)
    truth = [np.where(one.labels == 0, 255, one.labels * 75 - 1) for one in made]
    return Expected({"labels": truth}, splits=("train",), options={"class_codes": "1.."})


@tree
def labels_of_cityscapes(root):
    made, ids = worlds(), np.array([0, 7, 26], np.uint8)
    for number, one in enumerate(made):
        png(root / f"leftImg8bit/val/ulm/ulm_{number}_leftImg8bit.png", one.picture)
        png(root / f"gtFine/val/ulm/ulm_{number}_gtFine_labelIds.png", ids[one.labels])
    truth = [np.array([255, 0, 13])[one.labels] for one in made]
    says = (r"splits \(val\) are left aside",)
    return Expected({"labels": truth}, says=says, options={"class_codes": "cityscapes"})


@tree
def labels_of_cityscapes_in_splits(root):
    made, ids = worlds(), np.array([0, 7, 26], np.uint8)
    for split, one in zip(("train", "train", "val"), made):
        name = f"{split}/ulm/ulm_{one.picture.sum()}"
        png(root / f"leftImg8bit/{name}_leftImg8bit.png", one.picture)
        png(root / f"gtFine/{name}_gtFine_labelIds.png", ids[one.labels])
    made = [*sorted(made[:2], key=lambda one: f"{one.picture.sum()}"), made[2]]
    truth = [np.array([255, 0, 13])[one.labels] for one in made]
    splits = ("train", "val")
    return Expected({"labels": truth}, splits=splits, options={"class_codes": "cityscapes"})


@tree
def one_class_of_a_palette(root):
    colours = np.arange(768).reshape(256, 3) % 256

    def person(values):  # Pascal VOC's
        return edged(np.where(values == 2, 15, 0))

    return labels(root, lambda p, v: png(p, person(v), colours), person)


@tree
def labels_in_steps(root):
    return labels(root, lambda p, v: png(p, v * 100), same, says=(r"multiples of 100",))


@tree
def a_mask_of_one_class(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"masks/{number}.png", one.amodal.astype(np.uint8) * 255)
    truth = [one.amodal.astype(np.uint8) for one in made]
    return Expected({"labels": truth}, says=(r"background and one class",))


@tree
def labels_in_colours(root):
    labels(root, lambda p, v: png(p, COLOURS[v]), same)
    return Expected(refused=r"3 colours.*--classes legend\.json")


@tree
def labels_in_colours_with_a_legend(root):
    rows = ["name,r,g,b", "wall,0,0,0", "floor,128,64,128", "box,220,20,60"]
    found = labels(root, lambda p, v: png(p, COLOURS[v]), same, says=(r"a legend in the tree",))
    (root / "class_dict.csv").write_text("\n".join(rows))
    return found


@tree
def labels_in_colours_with_an_answer(root):
    classes = [{"name": n, "color": c.tolist()} for n, c in zip("abc", COLOURS)]
    legend = place(root.parent / "legend.json")
    legend.write_text(json.dumps(classes))
    answers = {"classes": str(legend)}
    return labels(root, lambda p, v: png(p, COLOURS[v]), same, answers=answers)


@tree
def labels_as_jpeg(root):
    labels(root, lambda p, v: Image.fromarray(v).save(place(p)), same, ".jpg")
    return Expected(refused=r"kept with losses")


@tree
def labels_of_16_bits(root):
    labels(root, lambda p, v: png(p, v.astype(np.uint16) * 1000 + 26000), same)
    return Expected(refused=r"no numbers of classes")


def outline(top: int, left: int, bottom: int, right: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def boxed(corners: tuple[int, int, int, int]) -> np.ndarray:
    top, left, bottom, right = corners
    found = np.zeros((24, 32), np.uint8)
    found[top:bottom, left:right] = 1
    return found


@tree
def labelme(root):
    made, corners = worlds(2), [(4, 5, 12, 20), (2, 8, 20, 16)]
    for number, one in enumerate(made):
        png(root / f"{number}.png", one.picture)
        shape = {"label": "box", "points": outline(*corners[number]), "shape_type": "polygon"}
        record = {"shapes": [shape], "imagePath": f"{number}.png", "imageHeight": 24}
        (root / f"{number}.json").write_text(json.dumps(record | {"imageWidth": 32}))
    return Expected({"labels": [boxed(one) for one in corners]}, says=(r"outlines of objects",))


@tree
def coco_instances(root):
    made, corners = worlds(2), [(4, 5, 12, 20), (2, 8, 20, 16)]
    images, annotations = [], []
    for number, one in enumerate(made):
        png(root / f"val2017/{number:012}.png", one.picture)
        images.append({"id": number, "file_name": f"{number:012}.png", "height": 24, "width": 32})
        polygon = [sum(outline(*corners[number]), [])]
        about = {"id": number, "image_id": number, "category_id": 7, "iscrowd": 0, "area": 99}
        annotations.append(about | {"segmentation": polygon})
    record = {"images": images, "annotations": annotations}
    record["categories"] = [{"id": 7, "name": "box"}]
    place(root / "annotations/instances_val2017.json").write_text(json.dumps(record))
    return Expected({"labels": [boxed(one) for one in corners]})


@tree
def labels_beside_pictures_without_words(root):
    made = worlds()
    for number, one in enumerate(made):
        Image.fromarray(one.picture).save(place(root / f"{number}.jpg"), quality=98, subsampling=0)
        png(root / f"{number}.png", one.labels)
    return Expected({"labels": [one.labels for one in made]}, [one.picture for one in made])


@tree
def labels_and_their_drawings(root):
    found = labels(root, png, same)
    for number, one in enumerate(worlds()):
        png(root / f"labels_color/{number}.png", COLOURS[one.labels])
    return found


@tree
def labels_in_three_greys(root):
    labels(root, lambda p, v: png(p, np.array([0, 128, 255], np.uint8)[v]), same)
    return Expected(refused=r"all but 255 multiples of 128")


@tree
def all_of_cityscapes(root):
    made, ids = worlds(), np.array([0, 7, 26], np.uint8)
    for number, one in enumerate(made):
        png(root / f"leftImg8bit/train/ulm/ulm_{number}_leftImg8bit.png", one.picture)
        to = root / f"gtFine/train/ulm/ulm_{number}_gtFine"
        png(to.with_name(f"{to.name}_labelIds.png"), ids[one.labels])
        png(to.with_name(f"{to.name}_instanceIds.png"), ids[one.labels].astype(np.uint16))
        png(to.with_name(f"{to.name}_color.png"), COLOURS[one.labels])
        to.with_name(f"{to.name}_polygons.json").write_text("{}")
    truth = [np.array([255, 0, 13])[one.labels] for one in made]
    return Expected({"labels": truth}, splits=("train",))
