"""KITTI's raw drives and annotated depth, brought together by an Eigen list."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepsight.data.prepare.kitti import kitti
from stepsight.errors import DataFormatError, UserError

DRIVE = "2011_09_26_drive_0002_sync"
LISTED = "eigen_test_files_with_gt.txt"


def image_name(frame: int) -> str:
    return f"2011_09_26/{DRIVE}/image_02/data/{frame:010d}.png"


def depth_name(frame: int) -> str:
    return f"{DRIVE}/proj_depth/groundtruth/image_02/{frame:010d}.png"


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five frames, one of which was never annotated; no final newline, as published."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "kitti"
    for frame in range(5):
        save(folder / image_name(frame), rng.integers(0, 256, (6, 20, 3), np.uint8))
        if frame != 3:
            part = "train" if frame % 2 else "val"
            depth = rng.integers(0, 3, (6, 20)).astype(np.uint16) * 9000
            save(folder / "data_depth_annotated" / part / depth_name(frame), depth)
    names = [depth_name(frame) if frame != 3 else "None" for frame in range(5)]
    lines = [f"{image_name(i)} {name} 721.5377" for i, name in enumerate(names)]
    (folder / LISTED).write_text("\n".join(lines))
    return folder


def prepare(root, out, **options):
    options.setdefault("report", lambda line: None)
    return kitti(root, out, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_annotated_frames_are_copied_byte_for_byte(root, tmp_path):
    out = tmp_path / "out"
    manifest = prepare(root, out)
    assert manifest.counts == {"test": 4}
    assert manifest.left_out == {image_name(3): "no ground truth"}
    assert (out / image_name(1)).read_bytes() == (root / image_name(1)).read_bytes()
    for frame, part in ((1, "train"), (2, "val")):
        source = root / "data_depth_annotated" / part / depth_name(frame)
        assert (out / depth_name(frame)).read_bytes() == source.read_bytes()
    lines = (out / LISTED).read_text().splitlines()
    assert lines == [f"{image_name(i)} {depth_name(i)} 721.5377" for i in (0, 1, 2, 4)]


def test_the_reader_opens_what_was_prepared(root, tmp_path):
    from stepsight import data

    prepare(root, tmp_path / "out")
    source = data.open("kitti", str(tmp_path / "out"), split="test")
    sample = source[1]
    truth = np.array(Image.open(root / "data_depth_annotated/train" / depth_name(1)))
    assert len(source) == 4 and sample.depth is not None and sample.depth_valid is not None
    np.testing.assert_array_equal(sample.depth[0].numpy()[truth > 0], truth[truth > 0] / 256)
    np.testing.assert_array_equal(sample.depth_valid[0].numpy(), truth > 0)


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_processes(root, tmp_path):
    prepare(root, tmp_path / "one")
    prepare(root, tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def eight_bits(path: Path) -> None:
    save(path, np.full((6, 20), 7, np.uint8))


def other_size(path: Path) -> None:
    save(path, np.full((5, 20), 7, np.uint16))


def all_invalid(path: Path) -> None:
    save(path, np.zeros((6, 20), np.uint16))


@pytest.mark.parametrize("harm", [cut, eight_bits, other_size, all_invalid, Path.unlink])
def test_a_damaged_frame_is_named_and_left_out_on_request(root, tmp_path, harm):
    victim = root / "data_depth_annotated/val" / depth_name(2)
    harm(victim)
    with pytest.raises(DataFormatError, match=depth_name(2)):
        prepare(root, tmp_path / "out")
    manifest = prepare(root, tmp_path / "out", strict=False)
    assert list(manifest.damaged) == [image_name(2)] and manifest.counts == {"test": 3}
    assert depth_name(2) in manifest.damaged[image_name(2)]
    assert depth_name(2) not in (tmp_path / "out" / LISTED).read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing to prepare"),
        ("a.png\n", "line 1: expected"),
        ("../a.png ../b.png 1\n", "outside the prepared folder"),
        ("a.png b.png 1\na.png c.png 2\n", "2 times"),
        ("a.png b.png 1\nc.png b.png 1\n", "2 times"),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(root, tmp_path, text, reason):
    (root / LISTED).write_text(text)
    with pytest.raises(UserError, match=reason):
        prepare(root, tmp_path / "out")


def test_another_list_needs_another_folder(root, tmp_path):
    prepare(root, tmp_path / "out")
    lines = (root / LISTED).read_text().splitlines()
    (root / LISTED).write_text("\n".join(lines[:3]))
    with pytest.raises(UserError, match="another folder"):
        prepare(root, tmp_path / "out")


def test_a_list_is_needed(root, tmp_path):
    shutil.move(root / LISTED, root / "frames.txt")
    with pytest.raises(UserError, match="found no list"):
        prepare(root, tmp_path / "out")


@pytest.mark.parametrize("place", ["", "train", "val", "data_depth_annotated/train"])
def test_ground_truth_is_found_wherever_the_reader_finds_it(root, tmp_path, place):
    for path in sorted((root / "data_depth_annotated").glob("*/*_sync/**/*.png")):
        target = root / place / DRIVE / path.parent.relative_to(path.parents[3]) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    assert prepare(root, tmp_path / "out").counts == {"test": 4}


def test_a_frame_without_ground_truth_needs_no_picture(root, tmp_path):
    (root / image_name(3)).unlink()
    assert prepare(root, tmp_path / "out").left_out == {image_name(3): "no ground truth"}


def test_a_folder_that_was_moved_or_an_update_is_no_reason_to_begin_anew(
    root, tmp_path, monkeypatch
):
    prepare(root, tmp_path / "out")
    monkeypatch.setattr("stepsight.data.prepare.preparation.tool", lambda: "stepsight 99")
    moved = shutil.move(root, tmp_path / "elsewhere")
    manifest = prepare(Path(moved), tmp_path / "out")
    assert (manifest.source, manifest.tool) == ("elsewhere", "stepsight 99")
    monkeypatch.setattr("stepsight.data.prepare.kitti.RULES", 99)
    with pytest.raises(UserError, match="settings.*99"):
        prepare(Path(moved), tmp_path / "out")
