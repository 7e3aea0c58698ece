"""ARKitScenes (Baruch et al. 2021): rooms filmed with an iPad, depth of its laser and of a scanner.

`<root>/{Training,Validation}/<video>/<folder>/<video>_<seconds>.png`. Option `depth` chooses the
pair of folders: `highres`, `highres_depth` (a stationary scanner, 1440 x 1920) with the pictures in
`wide`, called `color` in some copies; `lowres`, `lowres_depth` (the iPad's, 192 x 256) with
`lowres_wide`. Depth is 16-bit grey, millimetres, 0 where there is none. A folder may lack some of
the times (apple/ARKitScenes, DATA.md, raw/README.md): frames are the names that both have.

Pictures are stored as the sensor lies, which need not be upright.
"""

from __future__ import annotations

from pathlib import Path

from stepsight.data.readers.config import ArkitScenesSettings
from stepsight.data.readers.listed import DepthFrame, ListedDepth

FOLDERS = {  # option: folder of depth, and those where its pictures may lie
    "highres": ("highres_depth", ("wide", "color")),
    "lowres": ("lowres_depth", ("lowres_wide",)),
}
SPLITS = {"train": "Training", "val": "Validation"}


class ArkitScenes(ListedDepth):
    """Splits: train, val, all."""

    settings: ArkitScenesSettings
    marker = "*/*/highres_depth"

    def survey(self, root: Path, split: str) -> None:
        self.marker = f"*/*/{FOLDERS[self.settings.depth][0]}"

    def find(self, split: str) -> list[DepthFrame]:
        return self.pick(split, self.scan())

    def scan(self) -> dict[str, list[DepthFrame]]:
        return {
            split: [
                frame
                for video in sorted((self.root / folder).glob("*"))
                for frame in self._video(video)
            ]
            for split, folder in SPLITS.items()
        }

    def _video(self, video: Path) -> list[DepthFrame]:
        depth, places = FOLDERS[self.settings.depth]
        images = next((video / p for p in places if (video / p).is_dir()), video / places[0])
        names = {path.name for path in images.glob("*.png")}
        measured = {path.name for path in (video / depth).glob("*.png")}
        shared = sorted(names & measured)
        if alone := len(measured - names):
            said = f"{alone} of {len(measured)} files in {depth} have no picture in {images.name}"
            self.notes = (*self.notes, f"{video.name}: {said}, left out")
        place = f"{video.parent.name}/{video.name}"
        return [
            DepthFrame(f"{place}/{Path(name).stem}", images / name, video / depth / name)
            for name in shared
        ]
