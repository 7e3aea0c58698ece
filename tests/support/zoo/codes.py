"""Trees of masks, label maps, flow and normals in the encodings that people use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.files import kitti_flow, npy, pfm, pieh, place, png
from zoo.world import Expected, World, tree, world, worlds

Write = Callable[[Path, np.ndarray], Any]
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [220, 20, 60]], np.uint8)


def masks(root: Path, write: Write, suffix: str = ".png", **more) -> Expected:
    """A visible and a whole mask a picture, bool "h w" as `write` stores them."""
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"modal/{number}{suffix}", one.modal)
        write(root / f"amodal/{number}{suffix}", one.amodal)
    return whole(made, **more)


def whole(made: list[World], **more) -> Expected:
    return Expected({"amodal": [w.amodal for w in made]}, [w.picture for w in made], **more)


def bytes_of(inside: int, outside: int = 0) -> Write:
    return lambda path, mask: png(path, np.where(mask, inside, outside).astype(np.uint8))


@tree
def masks_0_255(root):
    return masks(root, bytes_of(255))


@tree
def masks_0_1(root):
    return masks(root, bytes_of(1))


@tree
def masks_of_a_bit(root):
    return masks(root, png)


@tree
def masks_of_16_bits(root):
    return masks(root, lambda path, mask: png(path, mask.astype(np.uint16) * 65535))


@tree
def masks_with_a_palette(root):
    def write(path, mask):
        png(path, mask.astype(np.uint8), np.array([[0, 0, 0], [128, 0, 0]]))

    return masks(root, write)


@tree
def masks_as_grey_colours(root):
    return masks(root, lambda p, m: png(p, np.repeat(m[..., None], 3, 2).astype(np.uint8) * 255))


@tree
def masks_in_the_alpha_channel(root):
    def write(path, mask):
        png(path, np.dstack([np.full((*mask.shape, 3), 255), mask * 255]).astype(np.uint8))

    return masks(root, write)


@tree
def masks_as_bools(root):
    return masks(root, npy, ".npy")


@tree
def masks_as_jpeg(root):
    def write(path, mask):
        large = np.kron(mask.astype(np.uint8) * 255, np.ones((8, 8), np.uint8))
        Image.fromarray(large).save(place(path), quality=95)

    made = [world(n, 24, 32) for n in range(2)]
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", np.kron(one.picture, np.ones((8, 8, 1), np.uint8)))
        write(root / f"modal/{number}.jpg", one.modal)
        write(root / f"amodal/{number}.jpg", one.amodal)
    return Expected({"amodal": [np.kron(one.amodal, np.ones((8, 8), bool)) for one in made]})


@tree
def dark_masks_with_an_answer(root):
    return masks(root, bytes_of(0, 255), answers={"mask_inside": "dark"})


@tree
def dark_masks(root):
    made = worlds()
    found = masks(root, bytes_of(0, 255), says=(r"border.*--mask-inside dark",), clean=False)
    found.truth["amodal"] = [~one.modal for one in made]  # united with the visible
    return found


@tree
def masks_of_three_values(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.labels)
        png(root / f"amodal/{number}.png", one.labels)
    return Expected(refused=r"say what is inside")


@tree
def masks_that_the_user_explains(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.labels)
        png(root / f"amodal/{number}.png", one.labels)
    found = whole(made, answers={"mask_inside": "2"})
    return found


@tree
def several_objects_a_picture(root):
    one = world()
    other = np.zeros_like(one.amodal)
    other[2:6, 2:9] = True
    png(root / "images/room.png", one.picture)
    for number, mask in enumerate((one.amodal, other)):
        png(root / f"visible_mask/room_{number}.png", mask)
        png(root / f"whole_mask/room_{number}.png", mask)
    return Expected({"amodal": [one.amodal, other]})


@tree
def whole_mask_alone(root):
    one = world()
    png(root / "images/0.png", one.picture)
    png(root / "amodal/0.png", one.amodal)
    return Expected(refused=r"takes the visible and the whole mask")


@tree
def empty_masks(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.labels * 0)
        png(root / f"amodal/{number}.png", one.labels * 0)
    return Expected(refused=r"no visible pixel")


def labels(root: Path, write: Write, truth: Callable, suffix=".png", **more) -> Expected:
    """Label maps, uint8 "h w" as `write` stores them, and what they stand for."""
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"labels/{number}{suffix}", one.labels)
    return Expected({"labels": [truth(w.labels) for w in made]}, [w.picture for w in made], **more)


def same(values: np.ndarray) -> np.ndarray:
    return values


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
    return Expected({"labels": truth}, splits=("val",), options={"class_codes": "cityscapes"})


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


def flows(root: Path, write: Write, suffix: str, truth=same, count: int = 3, **more) -> Expected:
    """Consecutive frames, and flow from each to the next; the last has none."""
    made = worlds(count)
    for number, one in enumerate(made):
        png(root / f"frames/{number:04}.png", one.picture)
        if number + 1 < count:
            write(root / f"flow/{number:04}{suffix}", one.flow)
    pictures = [one.picture for one in made]
    truths = {"flow": [truth(one.flow) for one in made[:-1]]}
    return Expected(truths, pictures[:-1], pictures[1:], **more)


@tree
def flow_between_frames(root):
    return flows(root, pieh, ".flo")


@tree
def flow_as_an_array(root):
    return flows(root, npy, ".npy")


@tree
def flow_with_channels_first(root):
    return flows(root, lambda path, f: npy(path, f.transpose(2, 0, 1)), ".npy")


@tree
def flow_as_pfm(root):
    return flows(root, lambda p, f: pfm(p, np.dstack([f, f[..., 0] * 0])), ".pfm")


@tree
def flow_of_unknown_unit(root):
    flows(root, lambda path, f: npy(path, f / np.float32([32, 24])), ".npy")
    return Expected(refused=r"--flow-unit pixels, or normalised")


@tree
def flow_in_shares_of_the_picture(root):
    answers = {"flow_unit": "normalised"}
    return flows(root, lambda p, f: npy(p, f / np.float32([32, 24])), ".npy", answers=answers)


@tree
def flow_of_pairs(root):
    made = worlds(4)
    for number in (0, 1):
        png(root / f"data/{number:05}_img1.png", made[2 * number].picture)
        png(root / f"data/{number:05}_img2.png", made[2 * number + 1].picture)
        pieh(root / f"data/{number:05}_flow.flo", made[2 * number].flow)
    pictures = [one.picture for one in made]
    return Expected({"flow": [made[0].flow, made[2].flow]}, pictures[::2], pictures[1::2])


@tree
def flow_as_in_kitti(root):
    made = worlds(4)
    known = made[0].labels != 0
    for number in (0, 1):
        png(root / f"training/image_2/{number:06}_10.png", made[2 * number].picture)
        png(root / f"training/image_2/{number:06}_11.png", made[2 * number + 1].picture)
        kitti_flow(root / f"training/flow_occ/{number:06}_10.png", made[2 * number].flow, known)
    truth = [np.where(known[..., None], one.flow, np.nan) for one in made[::2]]
    pictures = [one.picture for one in made]
    return Expected(
        {"flow": truth}, pictures[::2], pictures[1::2], splits=("train",), tolerance=0.1
    )


def normals(root: Path, write: Write, suffix: str, **more) -> Expected:
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"normals/{number}{suffix}", one.normals)
    return Expected({"normals": [one.normals for one in made]}, **more)


@tree
def normals_as_an_array(root):
    return normals(root, npy, ".npy")


@tree
def normals_in_colours(root):
    def write(path, values):
        png(path, ((values + 1) * 127.5).round().astype(np.uint8))

    return normals(root, write, ".png", tolerance=0.2)


@tree
def normals_of_another_length(root):
    normals(root, lambda path, values: npy(path, values * 0.3), ".npy")
    return Expected(refused=r"normals have length 0\.3")
