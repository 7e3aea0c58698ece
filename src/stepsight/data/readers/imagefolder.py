"""Pictures sorted into one folder per class, as ImageNet (Deng et al. 2009) is.

`<root>/<split>/<class folder>/*.JPEG` (or .jpg, .png, .ppm, .webp), or without splits
`<root>/<class folder>/*.JPEG`. The class of a picture is the number of its folder in sorted order,
so every split must have the folders of `train`. Pictures of any size are cut about their centre to
the shape of the working size, as is usual in class-conditional generation (Dhariwal & Nichol 2021).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from stepsight.data.decoding.images import read_image
from stepsight.data.fields import PICTURES
from stepsight.data.files import FileSource
from stepsight.errors import UserError
from stepsight.seeding import numpy_generator
from stepsight.types import Sample


class ImageFolder(FileSource[str]):
    """Pictures, each with a class. Splits: the folders under the root, and `all`, which is train
    and val, or what is in class folders at the root itself. An entry is a path below the root.
    """

    offers = frozenset({"class_id"})

    def survey(self, root: Path, split: str) -> None:
        if Path(split).name != split or split in ("", ".."):
            reason = f"the splits are the folders in {root}, and 'all'"
            raise UserError(f"{self.name}: no split '{split}'; {reason}.")
        self._parts = parts_of(root, split)
        self.marker = glob.escape(self._parts[0]) or "*/*.[jJpPwW]*"

    def find(self, split: str) -> list[str]:
        self.categories = class_folders(self.root / self._parts[0])
        self._numbers = {name: number for number, name in enumerate(self.categories)}
        for part in self._parts:
            self._check_classes(self.root / part)
        paths = [path for part in self._parts for path in self._pictures(part)]
        # Shuffled once and for all: the first so many of them must be of all classes.
        order = numpy_generator("imagefolder", self.name).permutation(len(paths))
        return self.pick(split, {split: [paths[place] for place in order]})

    def read(self, entry: str) -> Sample:
        path = self.root / entry
        image = centre_crop(read_image(path), self.size)
        sample = Sample(image=image, key=entry, source=self.name)
        if "class_id" in self.quantities:
            sample.class_id = self._numbers[path.parent.name]
        return sample

    def _pictures(self, part: str) -> Iterator[str]:
        """By class and name. ImageNet has 1.3 million: strings, because paths are slow."""
        for category in self.categories:
            for name in sorted(os.listdir(self.root / part / category)):
                if name.lower().endswith(PICTURES) and not name.startswith("."):
                    yield f"{part}{category}/{name}"

    def _check_classes(self, folder: Path) -> None:
        """Raise `UserError` unless the folder of a split has class folders, and those of train."""
        names, train = class_folders(folder), self.root / "train"
        if not names:
            raise UserError(
                f"{self.name}: {folder} has no class folders. The pictures of ImageNet's val come "
                f"in a single folder: sort them into one folder per class, named as in train."
            )
        differing = sorted(set(names) ^ set(class_folders(train)))
        if differing and folder.parent == self.root and train.is_dir():
            raise UserError(
                f"{self.name}: {train} and {folder} must have the same class folders; in only "
                f"one of them (of {len(differing)}): {', '.join(differing[:5])}."
            )


def parts_of(root: Path, split: str) -> list[str]:
    """The folders with the class folders of a split: `train/` and the like, or "" for the root."""
    if split != "all" or (root / split).is_dir():
        return [f"{split}/"]
    if class_folders(root / "train"):
        return [part for part in ("train/", "val/") if (root / part).is_dir()]
    return [""]


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in `folder`, sorted, without hidden ones; () if it is none."""
    paths = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return tuple(sorted(path.name for path in paths if not path.name.startswith(".")))


def centre_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest part of "3 h w" about its centre with the aspect ratio of height, width = `size`.

    To the nearest pixel; an odd pixel is cut from the bottom or the right.
    """
    height, width = image.shape[-2:]
    scale = min(height / size[0], width / size[1])
    tall, wide = (max(1, round(side * scale)) for side in size)
    top, left = (height - tall) // 2, (width - wide) // 2
    return image[:, top : top + tall, left : left + wide].contiguous()
