"""KITTI depth (Uhrig et al. 2017) on the frames of Eigen's split (Eigen et al. 2014).

`<root>/2011_09_26/<drive>_sync/image_02/data/N.png`, and the ground truth accumulated from several
laser sweeps, `<drive>_sync/proj_depth/groundtruth/image_02/N.png`: 16-bit grey PNG, metres x 256, 0
where there is none, about one pixel in five valid. The ground truth lies at the root (Marigold's
archive, the 652 annotated test frames) or as the official archive unpacks, under `train` and `val`,
also of `data_depth_annotated`.

With a list such as `eigen_test_files_with_gt.txt` (lines `rgb depth focal`) at the root, the frames
it lists that have ground truth: 45 of its 697 lines say `None` instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from stepsight.data.readers.listed import DepthFrame, ListedDepth, read_list

PLACES = {  # of the ground truth below the root: the split it holds where no list says
    "": "test",
    "train": "train",
    "val": "val",
    "data_depth_annotated/train": "train",
    "data_depth_annotated/val": "val",
}
NO_TRUTH = "None"


class Kitti(ListedDepth):
    """Driving with sparse depth. Splits: those of the lists, or by where the ground truth lies."""

    marker = "20*/*_sync/image_0[23]"
    lists = re.compile(r".*eigen_(train|val|test)_.*\.txt")
    published = {"test": 652}
    per_metre = 256

    def scan(self) -> dict[str, list[DepthFrame]]:
        splits: dict[str, list[DepthFrame]] = {}
        for images in sorted(self.root.glob(self.marker)):
            truth = f"{images.parent.name}/proj_depth/groundtruth/{images.name}"
            place = next((p for p in PLACES if (self.root / p / truth).is_dir()), None)
            if place is not None:
                frames = self._drive(images.relative_to(self.root), f"{place}/{truth}".lstrip("/"))
                splits.setdefault(PLACES[place], []).extend(frames)
        return splits

    def _drive(self, images: Path, truth: str) -> list[DepthFrame]:
        """The frames of a drive seen by one camera, both folders below the root."""
        names = sorted(path.name for path in (self.root / truth).glob("*.png"))
        return [self.frame("", f"{images.as_posix()}/data/{n}", f"{truth}/{n}") for n in names]

    def _listed(self, split: str, path: Path) -> list[DepthFrame]:
        pairs = [(image, depth) for image, depth in read_list(path) if depth != NO_TRUTH]
        return [self.frame(split, image, place_of(self.root, depth)) for image, depth in pairs]


def place_of(root: Path, depth: str) -> str:
    """Where below the root the depth that a list names lies."""
    places = [f"{place}/{depth}".lstrip("/") for place in PLACES]
    return next((place for place in places if (root / place).is_file()), depth)
