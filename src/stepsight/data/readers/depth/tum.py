"""TUM RGB-D (Sturm et al. 2012): Kinect sequences of hand-held and robot cameras.

`<root>/<sequence>/rgb/1305031102.175304.png` and `depth/1305031102.160407.png`, named by their
seconds; `rgb.txt` and `depth.txt` list them (lines `seconds file`, `#` opens a comment). Depth is
16-bit grey, metres x 5000, 0 where there is none. Pictures and depth are taken at different times:
they are paired by the rule of the benchmark's `associate.py`, closest pairs first, none further
apart than 0.02 s and no file twice. What finds no partner has no truth and is left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path

from stepsight.data.decoding.annotations import read_text
from stepsight.data.readers.listed import DepthFrame, ListedDepth
from stepsight.errors import DataFormatError

APART = 0.02  # seconds


class TumRgbd(ListedDepth):
    """Rooms at 480 x 640. Split: all. The root is a sequence, or a folder of them."""

    marker = "*/rgb.txt"
    per_metre = 5000

    def survey(self, root: Path, split: str) -> None:
        self.marker = "rgb.txt" if (root / "rgb.txt").is_file() else "*/rgb.txt"

    def find(self, split: str) -> list[DepthFrame]:
        return self.pick(split, self.scan())

    def scan(self) -> dict[str, list[DepthFrame]]:
        sequences = sorted(path.parent for path in self.root.glob(self.marker))
        return {"all": [frame for sequence in sequences for frame in self._sequence(sequence)]}

    def _sequence(self, folder: Path) -> list[DepthFrame]:
        images, depths = (read_times(folder / name) for name in ("rgb.txt", "depth.txt"))
        frames = list[DepthFrame]()
        for image, depth in paired(images, depths):
            path = folder / image
            key = path.relative_to(self.root).with_suffix("").as_posix()
            frames.append(DepthFrame(key, path, folder / depth))
        if alone := len(images) - len(frames):
            said = f"{alone} of {len(images)} pictures have no depth within {APART} s"
            self.notes = (*self.notes, f"{folder.name}: {said}, left out")
        return frames


def read_times(path: Path) -> list[tuple[float, str]]:
    """Seconds and file of each line. Raises `DataFormatError` naming the line."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rows.append((float(words[0]), words[1]))
        except (ValueError, IndexError) as error:
            reason = f"expected 'seconds file', found {line!r}"
            raise DataFormatError(f"{path}, line {number}: {reason}.") from error
    return sorted(rows)


def paired(
    first: list[tuple[float, str]], second: list[tuple[float, str]], apart: float = APART
) -> list[tuple[str, str]]:
    """The files of two sorted lists that were taken together, in the order of the first."""
    times = [time for time, _ in second]
    near = [
        (abs(time - times[j]), i, j)
        for i, (time, _) in enumerate(first)
        for j in range(bisect_left(times, time - apart), bisect_right(times, time + apart))
    ]
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for distance, i, j in sorted(near):
        if distance < apart and i not in chosen and j not in taken:
            chosen[i] = j
            taken.add(j)
    return [(first[i][1], second[j][1]) for i, j in sorted(chosen.items())]
