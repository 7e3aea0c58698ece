"""The surface normals on which DSINE (Bae & Davison 2024) evaluates: its folder `dsine_eval`.

The root is one of its sets, `dsine_eval/{nyuv2,scannet,ibims,sintel}`, a picture being
`<folder>/<name>_img.png`, beside it `<name>_normal.png` or `.exr` and `<name>_intrins.npy` (the
lens "3 3", which nothing here needs). PNG is 8-bit, 2 v / 255 - 1 with black for none (NYUv2: the
normals of GeoNet; ScanNet: FrameNet's); EXR holds the vectors as floats, and counts where they are
longer than a half (iBims-1, Sintel: planes fitted to depth). A list such as `test.txt` from
`data/datasets/<set>/split/` of the repository is followed where it lies at the root.

Its axes are left, up, back: a normal that looks at the camera agrees in sign with the ray through
its pixel (baegwangbin/DSINE at acfb813: `data/datasets/*/__init__.py`, `RayReLU`). They are turned
to right, down, forward here.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.data.decoding.annotations import read_text
from stepsight.data.decoding.arrays import read_exr
from stepsight.data.decoding.images import read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample

SHORTEST = 0.5  # vectors of floats below this length are none


class NormalsFile(NamedTuple):
    key: str
    image: Path
    normals: Path


class Dsine(FileSource[NormalsFile]):
    """Splits: those of `splits` by their folders, and all; or those of the lists at the root."""

    offers = frozenset({"normals"})
    marker = "*/*_img.*"
    splits: ClassVar[dict[str, str]] = {}  # split: folders that it has; none: only `all`
    suffix: ClassVar[str] = ".png"  # of normals

    def find(self, split: str) -> list[NormalsFile]:
        images = sorted(path.relative_to(self.root) for path in self.root.glob(self.marker))
        lists = {path.stem: path for path in sorted(self.root.glob("*.txt")) if _is_list(path)}
        if lists:
            parts = {name: [self._view(i) for i in listed(p)] for name, p in lists.items()}
        else:
            parts = {
                name: [self._view(image) for image in images if image.match(f"{folders}/*")]
                for name, folders in (self.splits or {"all": "*"}).items()
            }
        return self.pick(split, parts)

    def needed(self, entry: NormalsFile) -> list[Path]:
        return [entry.image, entry.normals] if "normals" in self.quantities else [entry.image]

    def read(self, entry: NormalsFile) -> Sample:
        sample = Sample(read_image(entry.image, upright=False), key=entry.key, source=self.name)
        if "normals" in self.quantities:
            normals, valid = read_normals(entry.normals)
            check_shapes([entry.image, entry.normals], sample.image, normals)
            check_any(valid, entry.normals, "no normal")
            sample.normals, sample.normals_valid = normals, valid
        return sample

    def _view(self, image: Path) -> NormalsFile:
        stem = image.stem.removesuffix("_img")
        normals = self.root / image.with_name(f"{stem}_normal{self.suffix}")
        return NormalsFile(image.with_name(stem).as_posix(), self.root / image, normals)


class DsineNyu(Dsine):
    """654 rooms to test on, 795 to train on."""

    splits = {"train": "train", "test": "test"}
    published = {"train": 795, "test": 654}


class DsineScanNet(Dsine):
    """300 frames of rooms scanned by hand."""

    splits = {"test": "scene*"}
    published = {"test": 300}


class DsineIbims(Dsine):
    """100 rooms."""

    published = {"all": 100}
    suffix = ".exr"


class DsineSintel(Dsine):
    """1,064 frames of an animated film."""

    published = {"all": 1064}
    suffix = ".exr"


def read_normals(path: Path) -> tuple[Tensor, Tensor]:
    """Unit normals "3 h w" (x right, y down, z forward) of a file, and where there are any.

    Raises `DataFormatError`.
    """
    if path.suffix == ".png":
        stored = read_image(path, out=24)
        valid = (stored > 0).any(dim=0, keepdim=True)
        vectors = stored.float().mul_(2).div_(255).sub_(1)
    else:
        stored = read_exr(path, "", (("r", "g", "b"),))
        if stored.shape[2] != 3:
            raise DataFormatError(f"{path}: {stored.shape[2]} channels, where normals have three.")
        vectors = torch.from_numpy(stored).permute(2, 0, 1).float().nan_to_num(0, 0, 0)
        valid = vectors.norm(dim=0, keepdim=True) > SHORTEST
    return F.normalize(vectors, dim=0).neg_().masked_fill_(~valid, 0.0), valid


def listed(path: Path) -> list[Path]:
    """The pictures that a list names, one a line."""
    return [Path(line.strip()) for line in read_text(path).splitlines() if line.strip()]


def _is_list(path: Path) -> bool:
    """Whether a text at the root is a list, and no read-me."""
    lines = read_text(path).split()
    return bool(lines) and all("_img." in line for line in lines)
