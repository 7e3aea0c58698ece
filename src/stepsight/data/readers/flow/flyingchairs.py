"""FlyingChairs (Dosovitskiy et al. 2015): pairs of PPM frames with dense flow.

`<root>/data/00001_img1.ppm, 00001_img2.ppm, 00001_flow.flo, ...`; line i of
`<root>/FlyingChairs_train_val.txt` belongs to the i-th flow file in sorted order: 1 is training,
2 is validation.
"""

from __future__ import annotations

from stepsight.data.decoding.formats import read_known_flo
from stepsight.data.readers.flow.pairs import Pair, PairSource
from stepsight.errors import DataFormatError, UserError

SPLIT_FILE = "FlyingChairs_train_val.txt"
SUFFIXES = ("_img1.ppm", "_img2.ppm", "_flow.flo")


class FlyingChairs(PairSource):
    """Chairs flying before photographs; flow in pixels. Splits: train, val, all."""

    marker = "data/*_flow.flo"
    splits = {"train": "1", "val": "2"}  # the numbers in the split file
    published = {"train": 22232, "val": 640}
    decode_flow = staticmethod(read_known_flo)

    def find(self, split: str) -> list[Pair]:
        pairs = self.pairs("data")
        if split == "all":
            return pairs
        rows = list(zip(pairs, self._split_numbers(len(pairs))))
        parts = {
            name: [pair for pair, n in rows if n == number] for name, number in self.splits.items()
        }
        return self.pick(split, parts)

    def pairs(self, folder: str) -> list[Pair]:
        names = self.names_in((folder, suffix) for suffix in SUFFIXES)
        base = self.root / folder
        return [Pair(n, *(base / f"{n}{suffix}" for suffix in SUFFIXES)) for n in names]

    def _split_numbers(self, flows: int) -> list[str]:
        """The split file's column of 1 and 2, one number per flow."""
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
