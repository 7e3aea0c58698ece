"""FlyingChairs (Dosovitskiy et al. 2015): pairs of PPM frames with dense flow.

`<root>/data/00001_img1.ppm, 00001_img2.ppm, 00001_flow.flo, ...`; line i of
`<root>/FlyingChairs_train_val.txt` belongs to the i-th flow file in sorted order: 1 is training,
2 is validation.
"""

from __future__ import annotations

from pathlib import Path

from stepsight.data.decoding.formats import known_flow, read_flo
from stepsight.data.decoding.images import read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

SPLIT_FILE = "FlyingChairs_train_val.txt"
SUFFIXES = ("_img1.ppm", "_img2.ppm", "_flow.flo")


class FlyingChairs(FileSource[str]):
    """Chairs flying before photographs; flow in pixels. Splits: train, val, all."""

    offers = frozenset({"flow"})
    marker = "data/*_flow.flo"
    published = {"train": 22232, "val": 640}

    def find(self, split: str) -> list[str]:
        present = {suffix: self._numbers(suffix) for suffix in SUFFIXES}
        ordered = sorted(set().union(*present.values()))
        for suffix, numbers in present.items():
            self.refuse_missing([self._path(n, suffix) for n in ordered if n not in numbers])
        if split == "all":
            return ordered
        rows = self._split_rows(len(ordered))
        parts = {"train": "1", "val": "2"}
        return self.pick(
            split,
            {name: [n for n, row in zip(ordered, rows) if row == r] for name, r in parts.items()},
        )

    def read(self, entry: str) -> Sample:
        paths = [self._path(entry, suffix) for suffix in SUFFIXES]
        image, second = read_image(paths[0]), read_image(paths[1])
        check_shapes(paths, image, second)
        sample = Sample(image=image, second=second, key=entry, source=self.name)
        if "flow" in self.quantities:
            flow = read_flo(paths[2])
            check_shapes([paths[0], paths[2]], image, flow)
            sample.flow, sample.flow_valid = flow, known_flow(flow)
            check_any(sample.flow_valid, paths[2], "no known flow")
        return sample

    def _path(self, number: str, suffix: str) -> Path:
        return self.root / "data" / f"{number}{suffix}"

    def _numbers(self, suffix: str) -> set[str]:
        return {path.name.removesuffix(suffix) for path in (self.root / "data").glob(f"*{suffix}")}

    def _split_rows(self, flows: int) -> list[str]:
        """The split file's column of 1 and 2, one for each flow."""
        path = self.root / SPLIT_FILE
        if not path.is_file():
            raise UserError(f"{self.name}: {path} not found. Only split 'all' does without it.")
        rows = path.read_text(encoding="utf-8", errors="replace").split()
        if wrong := [number for number, row in enumerate(rows, 1) if row not in ("1", "2")]:
            raise DataFormatError(f"{path}, line {wrong[0]}: {rows[wrong[0] - 1]!r} is not 1 or 2.")
        if len(rows) != flows:
            reason = f"{len(rows)} lines for {flows} flow files; line i means the i-th of all files"
            way_out = "Write a split file for this subset, or use split 'all'."
            raise UserError(f"{self.name}: {path} has {reason}. {way_out}")
        return rows
