"""TUM RGB-D, written here by the published layout."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.readers.config import TumRgbdSettings
from stepsight.data.readers.depth.tum import TumRgbd, paired
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[0, 5000, 4], [12500, 65535, 2500]], np.uint16)
RGB_TIMES = ("1.000000", "1.033000", "1.066000", "5.000000")
DEPTH_TIMES = ("1.010000", "1.034000", "1.050000")


@pytest.fixture
def sequence(tmp_path, write_png):
    folder = tmp_path / "rgbd_dataset_freiburg1_desk"
    for kind, times in (("rgb", RGB_TIMES), ("depth", DEPTH_TIMES)):
        for number, time in enumerate(times):
            pixels = DEPTH + number if kind == "depth" else np.full((2, 3, 3), number, np.uint8)
            write_png(folder / kind / f"{time}.png", pixels)
        lines = "".join(f"{time} {kind}/{time}.png\n" for time in times)
        (folder / f"{kind}.txt").write_text(f"# {kind} maps\n# file: 'x.bag'\n{lines}")
    return folder


def open_at(root):
    return TumRgbd(TumRgbdSettings(root=str(root)), "all")


def test_pairs_by_time(sequence):
    for root, before in ((sequence, ""), (sequence.parent, f"{sequence.name}/")):
        source = open_at(root)
        assert [s.key for s in source] == [f"{before}rgb/{time}" for time in RGB_TIMES[:3]]
    assert source.notes == (
        "rgbd_dataset_freiburg1_desk: 1 of 4 pictures have no depth within 0.02 s, left out",
    )
    sample = source[1]
    assert np.array_equal(sample.depth[0], (DEPTH + 1).astype(np.float32) / 5000)
    assert open_at(sequence)[0].depth_valid[0].tolist() == (DEPTH > 0).tolist()


def test_closest_pairs_come_first_and_no_file_twice():
    first = [(0.0, "a"), (0.011, "b"), (0.5, "c")]
    second = [(0.01, "x"), (0.019, "y"), (0.52, "z")]
    assert paired(first, second) == [("a", "y"), ("b", "x")]  # .02 is too far already


def test_malformed(sequence, write_png):
    path = sequence / "depth" / f"{DEPTH_TIMES[0]}.png"
    write_png(path, DEPTH.astype(np.uint8))
    with pytest.raises(DataFormatError, match="8-bit grey"):
        open_at(sequence)[0]
    (sequence / "depth.txt").write_text("1.0 a.png\nsoon b.png\n")
    with pytest.raises(DataFormatError, match="depth.txt, line 2: expected 'seconds file'"):
        open_at(sequence)
    (sequence / "rgb.txt").unlink()
    with pytest.raises(UserError, match="found 0 .*rgb.txt"):
        open_at(sequence)


def test_real_frames(tmp_path, real_samples):
    """Of a Kinect, at TUM's scale: a table top from .8 to 3.5 m."""
    folder = real_samples("zoo") / "png_tum5000"
    for kind, suffix in (("rgb", ".jpg"), ("depth", ".png")):
        (tmp_path / kind).mkdir()
        lines = []
        for number in range(4):
            name = f"{kind}/{number}.00{suffix}"
            source = folder / ("images" if kind == "rgb" else "depth") / f"{number:04d}{suffix}"
            (tmp_path / name).symlink_to(source)
            lines.append(f"{number}.00 {name}\n")
        (tmp_path / f"{kind}.txt").write_text("".join(lines))
    samples = list(open_at(tmp_path))
    depths = [sample.depth[sample.depth_valid] for sample in samples]
    assert len(samples) == 4 and samples[0].image.shape == (3, 480, 640)
    assert all(0.7 < depth.min() and depth.max() < 3.6 for depth in depths)
