"""Virtual KITTI 2 (Cabon et al. 2020): five KITTI streets rendered in many weathers and views.

`<root>/<rgb>/Scene01/<variation>/frames/rgb/Camera_0/rgb_00000.jpg`, where `<rgb>` is `rgb` or the
archive's `vkitti_2.0.3_rgb`, and likewise `depth/.../depth_00000.png` (16-bit grey, centimetres,
65535 in the sky) and `forwardFlow/.../flow_00000.png` (16-bit RGB). The splits are Marigold's:
scenes 02, 06, 18 and 20 for training, 01 for validation, in six of the ten variations.
"""

from __future__ import annotations

from pathlib import Path

import torch

from stepsight.data.decoding.formats import read_vkitti_flow
from stepsight.data.decoding.images import read_depth_png
from stepsight.data.files import check_any, check_shapes
from stepsight.data.readers.config import VirtualKittiSettings
from stepsight.data.readers.flow.pairs import Pair, PairSource, chosen, neighbours
from stepsight.types import Sample

VARIATIONS = ("15-deg-left", "15-deg-right", "clone", "morning", "overcast", "sunset")
FRAMES = {"01": 447, "02": 233, "06": 270, "18": 339, "20": 837}  # of each scene
SKY = 65535


class VirtualKitti(PairSource):
    """Depth in metres, flow in pixels; the last frame of a sequence has none and is left out.

    Without flow, every frame is there. Splits: train, val, all.
    """

    settings: VirtualKittiSettings
    offers = frozenset({"depth", "flow"})
    marker = "*rgb/Scene*/*/frames/rgb/Camera_*/rgb_*.jpg"
    splits = {"train": "02 06 18 20", "val": "01"}
    decode_flow = staticmethod(read_vkitti_flow)

    @property
    def cameras(self) -> tuple[str, ...]:
        return chosen(self.settings.camera, "0", "1")

    def find(self, split: str) -> list[Pair]:
        sequences = len(VARIATIONS) * len(self.cameras)
        lost = 1 if "flow" in self.quantities else 0
        self.published = {
            split: sequences * sum(FRAMES[scene] - lost for scene in scenes.split())
            for split, scenes in self.splits.items()
        }
        return super().find(split)

    def present(self) -> frozenset[str]:
        kinds = {"depth": "depth", "flow": "forwardFlow"}
        return frozenset(q for q, kind in kinds.items() if self._archive(kind).is_dir())

    def pairs(self, folder: str) -> list[Pair]:
        """All frames of the scenes whose numbers `folder` lists; pairs where flow is requested."""
        pairs = []
        for scene in folder.split():
            for variation in VARIATIONS:
                for camera in self.cameras:
                    pairs += self._sequence(f"Scene{scene}/{variation}", f"Camera_{camera}")
        return pairs

    def needed(self, entry: Pair) -> list[Path]:
        depth = [self._file(entry.key, "depth")] if "depth" in self.quantities else []
        return super().needed(entry) + depth

    def read(self, entry: Pair) -> Sample:
        sample = super().read(entry)
        if "depth" in self.quantities:
            path = self._file(entry.key, "depth")
            centimetres = read_depth_png(path).to(torch.float32)
            check_shapes([entry.image, path], sample.image, centimetres)
            sample.depth_valid = (centimetres > 0) & (centimetres < SKY)
            sample.depth = torch.where(sample.depth_valid, centimetres / 100, 0.0)
            check_any(sample.depth_valid, path, "no valid depth")
        return sample

    def _sequence(self, place: str, camera: str) -> list[Pair]:
        frames = sorted((self._archive("rgb") / place / "frames" / "rgb" / camera).glob("*.jpg"))
        keys = {frame: f"{place}/{camera}/{frame.stem.removeprefix('rgb_')}" for frame in frames}
        if "flow" not in self.quantities:
            return [Pair(key, frame) for frame, key in keys.items()]
        return [
            Pair(keys[image], image, second, self._file(keys[image], "forwardFlow"))
            for image, second in neighbours(frames)
        ]

    def _archive(self, kind: str) -> Path:
        """The top folder of a kind, called as in the archive or by the kind alone."""
        packed = self.root / f"vkitti_2.0.3_{kind}"
        return packed if packed.is_dir() else self.root / kind

    def _file(self, key: str, kind: str) -> Path:
        scene, variation, camera, number = key.split("/")
        name = f"{'flow' if kind == 'forwardFlow' else kind}_{number}.png"
        return self._archive(kind) / scene / variation / "frames" / kind / camera / name
