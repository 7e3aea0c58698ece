"""KITTI raw drives and annotated depth -> the frames of Eigen's lists, in the layout of the lists.

Under the root: `2011_09_26/<drive>_sync/image_02/data/N.png` (raw data, synced and rectified),
`data_depth_annotated/{train,val}/<drive>_sync/proj_depth/groundtruth/image_02/N.png` (Uhrig et al.
2017; or wherever else `stepsight.data.readers.depth.kitti` finds it), and lists such as
`eigen_test_files_with_gt.txt` with lines `rgb depth [focal length]`, where depth is `None` for
frames that were never annotated. Files are checked and copied byte for byte.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stepsight.data.decoding.disk import writing
from stepsight.data.decoding.images import read_image
from stepsight.data.files import check_any, check_shapes
from stepsight.data.prepare.jobs import Job
from stepsight.data.prepare.manifest import Manifest, fingerprint
from stepsight.data.prepare.preparation import Listing, Preparation, Report
from stepsight.data.readers.depth.kitti import NO_TRUTH, Kitti, place_of
from stepsight.data.readers.listed import read_integer_depth, read_lines
from stepsight.errors import UserError

RULES = 1  # raise when the same files come to mean another folder: what was made lapses


def kitti(
    root: Path, out: Path, *, report: Report, workers: int = 1, strict: bool = True
) -> Manifest:
    """Copy the listed frames that have ground truth. Raises `UserError`, `DataFormatError`."""
    lists = [path for path in sorted(root.glob("*.txt")) if Kitti.lists.fullmatch(path.name)]
    digests = {path.name: fingerprint(path)["sha256"] for path in lists}
    preparation = Preparation("kitti", root, out, {"lists": digests, "rules": RULES})
    splits = [Kitti.lists.sub(r"\1", path.name) for path in lists]
    listings = [Listing(s, path.name, read_jobs(path)) for s, path in zip(splits, lists)]
    if not listings:
        raise UserError(
            f"kitti: found no list in {root}; put one there, such as "
            "eigen_test_files_with_gt.txt (lines 'rgb depth focal')."
        )
    return preparation.run(listings, copy_frame, report=report, workers=workers, strict=strict)


def copy_frame(job: Job, staged: list[Path]) -> str | None:
    """Check and copy a pair."""
    if not job.inputs:
        return "no ground truth"
    image, depth = job.inputs
    values, valid = read_integer_depth(depth, 256)
    check_shapes(job.inputs, read_image(image), values)
    check_any(valid, depth, "no valid depth")
    for source, target in zip(job.inputs, staged):
        with writing(target):
            shutil.copyfile(source, target)
    return None


def read_jobs(path: Path) -> list[Job]:
    """The frames of a list. Raises `DataFormatError` naming the line."""
    jobs = []
    for line in map(str.strip, read_lines(path)):
        image, depth, *_ = line.split()
        files = (path.parent / image, path.parent / place_of(path.parent, depth))
        known = depth != NO_TRUTH
        jobs.append(Job(image, files * known, (image, depth) if known else (image,), line))
    return jobs
