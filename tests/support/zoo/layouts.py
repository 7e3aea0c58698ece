"""Trees that differ in where files lie and what they are called. Depth is float32 metres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo.files import npy, png
from zoo.world import Expected, World, tree, worlds

Named = Callable[[int], str]


def laid_out(root: Path, picture: Named, depth: Named, count: int = 3, **more) -> Expected:
    """Pictures and depth under those names; the samples come in the order of their numbers."""
    made = worlds(count)
    for number, one in enumerate(made):
        png(root / picture(number), one.picture)
        npy(root / depth(number), one.depth)
    return expected([made[n] for n in sorted(range(count), key=picture)], **more)


def expected(made: list[World], **more) -> Expected:
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made], **more)


@tree
def images_and_depth(root):
    return laid_out(root, lambda n: f"images/{n:04}.png", lambda n: f"depth/{n:04}.npy")


@tree
def rgb_and_depth(root):
    return laid_out(root, lambda n: f"rgb/{n:04}.png", lambda n: f"depth/{n:04}.npy")


@tree
def links_to_folders(root):
    made = laid_out(root / ".kept", lambda n: f"rgb/{n}.png", lambda n: f"depth/{n}.npy")
    for name in ("rgb", "depth"):
        (root / name).symlink_to(root / ".kept" / name)
    (root / "rgb" / "all").symlink_to(root / ".kept")  # which holds it
    return made


@tree
def a_list_of_something_else(root):
    (root / "metadata.jsonl").write_text('{"file_name": "rgb/0.png", "text": "a room"}\n')
    return laid_out(root, lambda n: f"rgb/{n}.png", lambda n: f"depth/{n}.npy")


@tree
def capitals(root):
    return laid_out(root, lambda n: f"RGB/{n:04}.PNG", lambda n: f"Depth/{n:04}.npy")


@tree
def one_folder_with_double_suffixes(root):
    return laid_out(root, lambda n: f"frame-{n:06}.color.png", lambda n: f"frame-{n:06}.depth.npy")


@tree
def double_suffixes_in_two_folders(root):
    return laid_out(root, lambda n: f"images/f{n}.color.png", lambda n: f"depth/f{n}.depth.npy")


@tree
def one_folder_without_words(root):
    return laid_out(root, lambda n: f"{n:03}.png", lambda n: f"{n:03}.npy")


@tree
def words_before_numbers(root):
    return laid_out(root, lambda n: f"room/rgb_{n:04}.png", lambda n: f"room/depth_{n:04}.npy")


@tree
def words_after_numbers(root):
    return laid_out(root, lambda n: f"{n:05}_colors.png", lambda n: f"{n:05}_depth.npy")


@tree
def different_padding(root):
    return laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n:06}.npy")


@tree
def different_prefixes(root):
    return laid_out(root, lambda n: f"images/IMG_20{n}.png", lambda n: f"depth/D20{n}.npy")


@tree
def depth_with_a_tail(root):
    return laid_out(root, lambda n: f"photos/cat{n}.png", lambda n: f"depth/cat{n}_dav2.npy")


@tree
def ground_truth_folder(root):
    return laid_out(root, lambda n: f"images/{n}.png", lambda n: f"gt/depth_gt_{n}.npy")


@tree
def nested_scenes(root):
    return laid_out(
        root,
        lambda n: f"scene{n % 2}/color/{n // 2}.png",
        lambda n: f"scene{n % 2}/depth/{n // 2}.npy",
        4,
    )


@tree
def scenes_below_roles(root):
    return laid_out(
        root,
        lambda n: f"color/kitchen_{n % 2}/{n // 2}.png",
        lambda n: f"depth/kitchen_{n % 2}/{n // 2}.npy",
        4,
    )


@tree
def as_in_kitti(root):
    day = "2011_09_26/2011_09_26_drive_0002_sync"
    return laid_out(
        root,
        lambda n: f"{day}/image_02/data/{n:010}.png",
        lambda n: f"train/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/{n:010}.npy",
    )


@tree
def open3d(root):
    (root / "intrinsic.json").write_text('{"width": 32, "height": 24}')
    return laid_out(root, lambda n: f"color/{n:06}.png", lambda n: f"depth/{n:06}.npy")


@tree
def splits_above(root):
    parts = ("train", "train", "val", "test")
    found = laid_out(
        root, lambda n: f"{parts[n]}/images/{n}.png", lambda n: f"{parts[n]}/depth/{n}.npy", 4
    )
    found.splits = ("test", "train", "val")
    return found


@tree
def splits_below(root):
    parts = ("train", "train", "val")
    return laid_out(
        root,
        lambda n: f"images/{parts[n]}/{n}.png",
        lambda n: f"depth/{parts[n]}/{n}.npy",
        splits=("train", "val"),
    )


@tree
def half_missing(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy", 4)
    for number in (1, 3):
        (root / f"depth/{number}.npy").unlink()
        found.truth["depth"][number] = None
    found.truth["depth"] = found.truth["depth"][::2]
    found.pictures = found.pictures[::2]
    found.says, found.clean = (r"2 of 4 pictures have depth",), False
    return found


@tree
def orphaned_depth(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    npy(root / "depth/9.npy", worlds(1)[0].depth)
    found.says, found.clean = (r"1 of 4 depth files go with no one picture",), False
    return found


@tree
def two_depths_a_picture(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    npy(root / "depth/0_depth.npy", worlds(2)[1].depth)
    found.truth["depth"], found.pictures = found.truth["depth"][1:], found.pictures[1:]
    found.says, found.clean = (r"1 pictures have several depth files.*0\.png",), False
    return found


@tree
def shifted_numbers_are_not_paired_by_position(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n + 1}.npy")
    found.truth["depth"] = found.truth["depth"][:2]
    found.pictures = found.pictures[1:]
    found.says, found.clean = (r"1 of 3 depth files", r"2 of 3 pictures have depth"), False
    return found


@tree
def hidden_files_and_notes(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    (root / "images/.DS_Store").write_bytes(b"\0")
    (root / "README.md").write_text("mine")
    (root / "poses.txt").write_text("1 0 0\n")
    return found


@tree
def confidence_beside_depth(root):
    found = laid_out(root, lambda n: f"color/{n}.png", lambda n: f"depth/{n}.npy")
    for number, one in enumerate(worlds()):
        png(root / f"confidence/{number}.png", one.labels)
    return found


@tree
def no_pictures(root):
    npy(root / "depth/0.npy", worlds(1)[0].depth)
    return Expected(refused=r"no picture")


@tree
def pictures_alone(root):
    png(root / "images/0.png", worlds(1)[0].picture)
    return Expected(refused=r"1 pictures, and no truth")


@tree
def nothing(root):
    return Expected(refused=r"no picture")


@tree
def one_damaged(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    path = root / "depth/1.npy"
    path.write_bytes(path.read_bytes()[:-99])
    found.truth["depth"][1] = found.pictures[1] = None
    found.says, found.clean = (r"1 of 3 .* cannot be read.*1\.npy",), False
    return found


@tree
def all_damaged(root):
    laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    for number in range(3):
        (root / f"depth/{number}.npy").write_bytes(b"no")
    return Expected(refused=r"0\.npy.*not a \.npy file")


@tree
def train_and_test_alone(root):
    parts = ("train", "train", "test")
    return laid_out(
        root,
        lambda n: f"{parts[n]}/images/{n}.png",
        lambda n: f"{parts[n]}/depth/{n}.npy",
        splits=("train", "test"),
        options={"eval_split": "test"},
    )


@tree
def films_and_models_beside(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    (root / "tour.mp4").write_bytes(b"film")
    (root / "weights.pth").write_bytes(b"weights")
    found.says = (r"tour\.mp4: of a format that is not read",)
    return found


@tree
def depth_of_a_format_that_is_not_read(root):
    laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.bin")
    return Expected(refused=r"0\.bin: of a format that is not read")


@tree
def splits_within_names(root):
    parts = ("train", "train", "val")
    return laid_out(
        root,
        lambda n: f"{parts[n]}_rgb/{n}.png",
        lambda n: f"{parts[n]}_depth/{n}.npy",
        splits=("train", "val"),
    )


@tree
def as_in_tartanair(root):
    found = laid_out(
        root,
        lambda n: f"P001/image_left/{n:06}_left.png",
        lambda n: f"P001/depth_left/{n:06}_left_depth.npy",
    )
    made = worlds()
    for number in (0, 1):
        at = root / f"P001/flow/{number:06}_{number + 1:06}"
        npy(at.with_name(f"{at.name}_flow.npy"), made[number].flow)
        npy(at.with_name(f"{at.name}_mask.npy"), np.zeros((24, 32), np.uint8))
    found.truth["flow"] = [made[0].flow, made[1].flow, None]
    found.says, found.clean = (r"2 of 3 pictures have flow",), False
    return found


@tree
def names_with_blanks_and_signs(root):
    return laid_out(root, lambda n: f"Bilder/größe {n} #x.png", lambda n: f"depth/größe {n} #x.npy")


@tree
def two_pictures_of_one_name(root):
    laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    for number, one in enumerate(worlds()):
        png(root / f"rgb/{number}.png", one.picture)
    return Expected(refused=r"0\.npy, which may be that of images/0\.png or rgb/0\.png")
