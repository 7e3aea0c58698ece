"""Trees that differ in the unit of depth, and in the values that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zoo.files import npy, npy_bytes, pfm, place, png
from zoo.world import Expected, World, measured, metres, tree, worlds


def stored(root: Path, write, values, truth, suffix: str, made: list[World], **more) -> Expected:
    """Pictures, and depth files that hold `values`."""
    for number, (one, held) in enumerate(zip(made, values)):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"depth/{number}{suffix}", held)
    return Expected({"depth": list(truth)}, [one.picture for one in made], **more)


def floats(root: Path, write, suffix: str, **more) -> Expected:
    made = worlds()
    depths = [one.depth for one in made]
    return stored(root, write, depths, depths, suffix, made, **more)


def sensed(root: Path, write, suffix: str, scale: float = 1.0, none: int = 0, **more) -> Expected:
    """Whole numbers of a structured-light camera, at `scale` times millimetres."""
    made = worlds(3, 96, 128)
    whole = [(measured(one.depth) * scale).round().astype(np.uint16) for one in made]
    truth = [metres(values, 1000 * scale) for values in whole]
    held = [np.where(values == 0, none, values).astype(np.uint16) for values in whole]
    return stored(root, write, held, truth, suffix, made, **more)


@tree
def millimetres(root):
    return sensed(
        root, png, ".png", options={"depth_unit": "mm"}, says=(r"structured-light camera do in mm",)
    )


@tree
def five_thousandths(root):
    unit = {"depth_unit": "1/5000"}
    return sensed(root, png, ".png", 5, options=unit, says=(r"multiples of 5",))


@tree
def of_256_to_the_metre(root):
    return sensed(root, png, ".png", 0.256, options={"depth_unit": "1/256"})


@tree
def none_is_65535(root):
    return sensed(
        root,
        png,
        ".png",
        1,
        65535,
        options={"depth_unit": "mm", "invalid": [65535.0]},
        says=(r"exactly 65535",),
    )


def dense_whole(root: Path, per_metre: float, **more) -> Expected:
    made = worlds()
    whole = [(one.depth * per_metre).round().astype(np.uint16) for one in made]
    return stored(root, png, whole, [w / per_metre for w in whole], ".png", made, **more)


@tree
def whole_numbers_that_nobody_explains(root):
    dense_whole(root, 1000)
    return Expected(refused=r"m in mm, or .* m in 1/256.*--depth-unit")


@tree
def whole_numbers_that_the_user_explains(root):
    return dense_whole(root, 1000, answers={"depth_unit": "mm"})


@tree
def an_answer_overrides_evidence(root):
    found = sensed(root, png, ".png", 1, answers={"depth_unit": "1/2000"})
    found.truth["depth"] = [depth / 2 for depth in found.truth["depth"]]
    found.options = {"depth_unit": "1/2000"}
    return found


@tree
def named_millimetres(root):
    made = worlds()
    whole = [(one.depth * 1000).round().astype(np.uint16) for one in made]
    for number, (one, values) in enumerate(zip(made, whole)):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"depth_mm/{number}.png", values)
    return Expected({"depth": [w / 1000 for w in whole]}, says=(r"name says 'mm'",))


@tree
def declared_scale(root):
    (root / "camera.json").write_text('{"fx": 500, "depth_scale": 4000.0}')
    return dense_whole(root, 4000, options={"depth_unit": "1/4000"}, says=(r"camera\.json",))


@tree
def virtual_kitti(root):
    made = worlds()
    whole = [np.where(w.labels == 0, 65535, w.depth * 1000).astype(np.uint16) for w in made]
    for number, (one, values) in enumerate(zip(made, whole)):
        png(root / f"vkitti/rgb/{number}.png", one.picture)
        png(root / f"vkitti/depth/{number}.png", values)
    truth = [np.where(values == 65535, np.nan, values / 100) for values in whole]
    return Expected({"depth": truth}, options={"depth_unit": "cm", "invalid": [65535.0]})


@tree
def laser_scans(root):
    made = worlds(3, 24, 80)
    far = [10 * one.depth for one in made]
    whole = [(depth * 256).round().astype(np.uint16) for depth in far]
    for values in whole:
        values[1::2], values[:, 1::2] = 0, 0
    truth = [metres(values, 256) for values in whole]
    unit = {"depth_unit": "1/256"}
    return stored(root, png, whole, truth, ".png", made, options=unit, says=(r"laser scans",))


def with_none(root: Path, none: float, **more) -> Expected:
    made = worlds()
    held = [np.where(one.labels == 0, none, one.depth).astype(np.float32) for one in made]
    truth = [np.where(one.labels == 0, np.nan, one.depth) for one in made]
    return stored(root, npy, held, truth, ".npy", made, **more)


@tree
def none_is_nan(root):
    return with_none(root, np.nan)


@tree
def none_is_infinite(root):
    return with_none(root, np.inf)


@tree
def none_is_minus_one(root):
    return with_none(root, -1, says=(r"negative",))


@tree
def sky_at_ten_billion_metres(root):
    return with_none(root, 1e10, options={"depth_unit": "m", "invalid": [1e10]}, says=(r"1e\+10",))


@tree
def clamped_at_eighty_metres(root):
    return with_none(root, 80, options={"depth_unit": "m", "invalid": [80.0]})


@tree
def none_is_what_the_user_says(root):
    return with_none(root, 9.5, answers={"invalid": (9.5,)})


@tree
def marked_where_known(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"{number}.png", one.picture)
        npy(root / f"{number}_depth.npy", one.depth)
        npy(root / f"{number}_depth_mask.npy", (one.labels != 0).astype(np.float32))
    truth = [np.where(one.labels == 0, np.nan, one.depth) for one in made]
    return Expected({"depth": truth}, [one.picture for one in made])


@tree
def at_a_quarter_of_the_size(root):
    made = worlds(3, 48, 64)
    small = [one.depth[1::4, 1::4] for one in made]
    found = stored(root, npy, small, [None] * 3, ".npy", made)
    found.truth = {"depth": [np.repeat(np.repeat(d, 4, 0), 4, 1) for d in small]}
    found.tolerance = 0.6  # the reader may interpolate
    return found


@tree
def metres_of_a_set_that_also_has_millimetres(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"nyu/rgb/{number}.png", one.picture)
        npy(root / f"nyu/depth/{number}.npy", one.depth)
    depths = [one.depth for one in made]
    return Expected({"depth": depths}, [w.picture for w in made], options={"depth_unit": "m"})


@tree
def floats_of_whole_millimetres(root):
    made = worlds(3, 96, 128)
    whole = [measured(one.depth).astype(np.float32) for one in made]
    truth = [metres(values) for values in whole]
    return stored(root, npy, whole, truth, ".npy", made, options={"depth_unit": "mm"})


@tree
def disparity_by_name(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"left/{number}.png", one.picture)
        pfm(root / f"disparity/{number}.pfm", 40 / one.depth)
    truth = [one.depth / 40 for one in made]
    return Expected({"depth": truth}, options={"depth_unit": "disparity"})


@tree
def disparity_called_depth(root):
    made = worlds(3, 48, 64)
    held = [(40 / one.depth).astype(np.float32) for one in made]
    truth = [one.depth / 40 for one in made]
    unit = {"depth_unit": "disparity"}
    return stored(root, npy, held, truth, ".npy", made, options=unit, says=(r"disparit",))


@tree
def disparity_with_its_constant(root):
    made = worlds()
    held = [(40 / one.depth).astype(np.float32) for one in made]
    answers = {"depth_unit": "40/disparity"}
    return stored(root, npy, held, [w.depth for w in made], ".npy", made, answers=answers)


@tree
def depth_from_0_to_1(root):
    made, draw = worlds(), np.random.default_rng(0)
    held = [draw.random(one.depth.shape).astype(np.float32) for one in made]
    stored(root, npy, held, held, ".npy", made)
    return Expected(refused=r"m in m, or disparity, .*--depth-unit")


@tree
def depth_in_8_bits(root):
    made = worlds()
    held = [(40 * one.depth).clip(0, 255).astype(np.uint8) for one in made]
    stored(root, png, held, held, ".png", made)
    return Expected(refused=r"8-bit")


@tree
def depth_in_colours(root):
    made = worlds()
    held = [np.stack([one.labels * 90, one.labels * 20, 255 - one.labels], -1) for one in made]
    stored(root, png, held, held, ".png", made)
    return Expected(refused=r"depth in colours")


@tree
def depth_as_jpeg(root):
    def write(path, values):
        Image.fromarray(values).save(place(path))

    made = worlds()
    held = [(40 * one.depth).clip(0, 255).astype(np.uint8) for one in made]
    stored(root, write, held, held, ".jpg", made)
    return Expected(refused=r"8-bit")


@tree
def depth_without_a_value(root):
    made = worlds()
    stored(root, npy, [0 * one.depth for one in made], [], ".npy", made)
    return Expected(refused=r"no file that was looked at holds a value above 0")


@tree
def npy_pickle(root):
    made = worlds()
    bad = npy_bytes(np.zeros((2, 2))).replace(b"<f8", b"|O ")
    stored(root, lambda path, _: place(path).write_bytes(bad), made, made, ".npy", made)
    return Expected(refused=r"not a \.npy file of numbers")


@tree
def a_phone_with_lidar(root):
    found = dense_whole(root, 1000, options={"depth_unit": "mm"}, says=(r"confidence",))
    for number in range(3):
        png(root / f"confidence/{number}.png", np.full((24, 32), 2, np.uint8))
    return found


@tree
def tum_without_a_grid(root):
    found = dense_whole(root, 5000, options={"depth_unit": "1/5000"}, says=(r"TUM RGB-D's layout",))
    for name in ("rgb.txt", "depth.txt"):
        (root / name).write_text("# timestamp filename\n")
    return found


@tree
def floats_beside_whole_numbers(root):
    sensed(root, png, ".png")
    made = worlds(6, 96, 128)
    for number in (3, 4, 5):
        png(root / f"images/{number}.png", made[number].picture)
        npy(root / f"depth/{number}.npy", made[number].depth)
    return Expected(refused=r"some files hold floats and others whole numbers")


@tree
def files_of_several_units(root):
    made = worlds(4)
    held = [one.depth * (1000 if number % 2 else 1) for number, one in enumerate(made)]
    stored(root, npy, held, held, ".npy", made)
    return Expected(refused=r"these are several units")
