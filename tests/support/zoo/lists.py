"""Trees whose files are paired by time stamps and lists, and split by lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from zoo.files import npy, png
from zoo.layouts import expected, laid_out
from zoo.world import Expected, measured, metres, tree, worlds


def time_stamped(root: Path, late: float) -> Expected:
    made, start = worlds(3, 96, 128), 1305031102.175304
    lines = {"rgb": [], "depth": []}
    stored = [5 * measured(one.depth).astype(np.uint16) for one in made]
    for number, (one, depth) in enumerate(zip(made, stored)):
        when = start + number / 30
        png(root / f"rgb/{when:.6f}.png", one.picture)
        png(root / f"depth/{when + late:.6f}.png", depth)
        lines["rgb"].append(f"{when:.6f} rgb/{when:.6f}.png")
        lines["depth"].append(f"{when + late:.6f} depth/{when + late:.6f}.png")
    for name, listed in lines.items():
        head = f"# {name} images\n# timestamp filename\n"
        (root / f"{name}.txt").write_text(head + "\n".join(listed) + "\n")
    found = Expected({"depth": [metres(s, 5000) for s in stored]}, [w.picture for w in made])
    return found


@tree
def tum_time_stamps(root):
    found = time_stamped(root, 0.0125)
    found.options, found.says = {"depth_unit": "1/5000"}, (r"time stamps", r"multiples of 5")
    return found


@tree
def time_stamps_too_far_apart(root):
    time_stamped(root, 0.4)
    return Expected(refused=r"3 of 3 depth files go with no one picture")


@tree
def own_list(root):
    made = worlds()
    lines = []
    for number, one in enumerate(made):
        png(root / f"a/{number}.png", one.picture)
        npy(root / f"b/{'xyz'[number]}.npy", one.depth)
        line = {"image": f"a/{number}.png", "depth": f"b/{'xyz'[number]}.npy"}
        lines.append(json.dumps(line | {"split": "train" if number else "val"}))
    (root / "samples.jsonl").write_text("\n".join(lines))
    return expected(made, splits=("val", "train"))


@tree
def two_columns(root):
    made = worlds()
    rows = []
    for number, one in enumerate(made):
        png(root / f"a/{number}.png", one.picture)
        npy(root / f"d/{'xyz'[number]}.npy", one.depth)
        rows.append(f"a/{number}.png d/{'xyz'[number]}.npy")
    (root / "filename_list.txt").write_text("\n".join(rows))
    return expected(made)


@tree
def lists_of_splits(root):
    found = laid_out(root, lambda n: f"images/{n}.png", lambda n: f"depth/{n}.npy")
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("0\n1\n")
    (root / "lists/val.txt").write_text("2\n")
    found.splits = ("train", "val")
    return found


@tree
def splits_of_some(root):
    found = laid_out(root, lambda n: f"JPEGImages/{n}.png", lambda n: f"depth/{n}.npy", 4)
    (root / "depth/3.npy").unlink()
    for name, listed in (("train", "0\n1\n"), ("val", "2\n")):
        (root / f"{name}.txt").write_text(listed)
    found.truth["depth"].pop()
    found.splits, found.clean = ("train", "val"), False
    found.says = (r"3 of 4 pictures have depth",)
    return found
