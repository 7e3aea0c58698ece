"""Trees that differ in the container of depth, float32 metres unless said."""

from __future__ import annotations

import numpy as np

from zoo.depths import floats, sensed
from zoo.files import exr, npy, pfm, pgm, pieh, place, png, tiff
from zoo.world import Expected, tree, worlds


@tree
def npy_doubles(root):
    return floats(root, lambda path, d: npy(path, d.astype(np.float64)), ".npy")


@tree
def npy_halves(root):
    return floats(root, lambda p, d: npy(p, d.astype(np.float16)), ".npy", tolerance=1e-3)


@tree
def npy_with_a_leading_axis(root):
    return floats(root, lambda path, d: npy(path, d[None]), ".npy")


@tree
def npy_with_a_trailing_axis(root):
    return floats(root, lambda path, d: npy(path, d[..., None]), ".npy")


@tree
def pfm_depth(root):
    return floats(root, pfm, ".pfm")


@tree
def sintel_depth(root):
    return floats(root, pieh, ".dpt")


@tree
def exr_one_channel(root):
    return floats(root, lambda path, d: exr(path, {"Z": d}), ".exr")


@tree
def exr_halves_as_colours(root):
    half = np.float16
    return floats(
        root, lambda p, d: exr(p, {c: d.astype(half) for c in "RGB"}), ".exr", tolerance=1e-3
    )


@tree
def tiff_floats(root):
    return floats(root, tiff, ".tiff")


@tree
def tiff_whole_numbers(root):
    return sensed(root, tiff, ".tif", options={"depth_unit": "mm"})


@tree
def npz_one_array(root):
    return floats(root, lambda path, d: np.savez_compressed(place(path), d), ".npz")


@tree
def hdf5_one_array(root):
    def write(path, depth):
        h5py = __import__("h5py")
        with h5py.File(place(path), "w") as file:
            file["dataset"] = depth

    return floats(root, write, ".h5")


@tree
def mat_depth(root):
    def write(path, depth):
        __import__("scipy.io").io.savemat(place(path), {"depth": depth})

    return floats(root, write, ".mat")


@tree
def npz_of_picture_and_depth(root):
    made = worlds()
    for number, one in enumerate(made):
        np.savez(place(root / f"{number}.npz"), rgb=one.picture, depth=one.depth)
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def hdf5_of_picture_and_depth(root):
    made = worlds()
    for number, one in enumerate(made):
        with __import__("h5py").File(place(root / f"{number}.h5"), "w") as file:
            file["rgb"], file["depth"] = one.picture, one.depth
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def hdf5_stacks(root):
    made = worlds()
    with __import__("h5py").File(place(root / "room.h5"), "w") as file:
        file["images"] = np.stack([one.picture for one in made])
        file["depths"] = np.stack([one.depth for one in made])
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def mat_of_picture_and_depth(root):
    made = worlds()
    for number, one in enumerate(made):
        arrays = {"rgb": one.picture, "depth": one.depth}
        __import__("scipy.io").io.savemat(place(root / f"{number}.mat"), arrays)
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def pgm_millimetres(root):
    return sensed(root, pgm, ".pgm", options={"depth_unit": "mm"})


@tree
def npz_stacks(root):
    made = worlds()
    pictures, depths = [one.picture for one in made], [one.depth for one in made]
    np.savez_compressed(place(root / "room.npz"), images=pictures, depths=depths)
    return Expected({"depth": depths}, pictures)


@tree
def hdf5_of_a_picture_in_floats(root):
    made = worlds()
    for number, one in enumerate(made):
        with __import__("h5py").File(place(root / f"{number}.h5"), "w") as file:
            file["rgb"], file["depth"] = np.float32(one.picture / 255), one.depth
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def depth_and_its_drawings(root):
    found = floats(root, npy, ".npy")
    for number, one in enumerate(worlds()):
        png(root / f"depth_vis/{number}.png", one.picture)
    return found
