"""A user's own pictures, with whatever truth is there.

By folders: `<root>/images/*` and, with the same names, any of `second` (the next frame), `depth`,
`flow`, `normals` (formats: `data.decoding.truth`), `labels`, `modal` and `amodal`, and masks
`depth_valid`, `flow_valid`, `normals_valid` that mark where a value counts; further quantities of
packages, if their rows in the table of fields have suffixes. Or all of this below `<root>/train`,
`val`, `test`.

By a list: lines of JSON, each an object with `image` and any of the names above, paths below the
root, and optionally `key` and `split`.

Truth is per sample: a picture that has no depth is a sample without depth. Where no split for
evaluation is named, a share of the pictures is held out (`own.holdout`). Pictures are read upright
and truth is brought to their grid (`own.upright`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from stepsight.data.decoding.disk import part_of
from stepsight.data.decoding.labels import label_codes
from stepsight.data.decoding.masks import read_mask
from stepsight.data.decoding.pictures import read_picture
from stepsight.data.fields import Field, row_of, with_values
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.data.readers.config import FolderSettings
from stepsight.data.readers.masks.amodal import amodal_masks
from stepsight.data.readers.own.holdout import hold_out
from stepsight.data.readers.own.listing import (
    SampleFiles,
    by_folders,
    files_required,
    read_list,
)
from stepsight.data.readers.own.upright import Upright
from stepsight.errors import UserError
from stepsight.types import Sample

SPLITS = ("train", "val", "test")


class Folder(FileSource[SampleFiles]):
    """Pictures with any of depth, flow, normals, labels and amodal masks.

    Its quantities are those that any sample of the split has files for; `truths` says which.
    Splits: all; by folders, those of train, val and test that are there; by a list, those it names;
    where that names none for evaluation, the settings' two, of which a share is held out.
    """

    settings: FolderSettings
    offers = frozenset({"depth", "flow", "labels", "amodal", "normals"})
    truths: tuple[frozenset[str], ...] = ()

    def survey(self, root: Path, split: str) -> None:
        self._splits = [name for name in SPLITS if (root / name / "images").is_dir()]
        if (root / "images").is_dir() or not self._splits:
            self._splits = [""]
        by_folder = f"{self._splits[0]}/images/*".lstrip("/")
        self.marker = "*" if self.settings.list else by_folder
        self._required = files_required()
        self._upright = Upright(self.name, root)

    def offered(self) -> frozenset[str]:
        return frozenset(self._required)

    def find(self, split: str) -> list[SampleFiles]:
        self._required = {q: self._required[q] for q in sorted(self.quantities)}
        every, unpaired = self._parts()
        parts, apart = self._held_out(every, split)
        entries = self.pick(split, parts)
        truths = tuple(entry.truths(self._required) for entry in entries)
        self.quantities = frozenset[str]().union(*truths)
        self.truths = truths if len({*truths}) > 1 else ()
        self.notes = (*unpaired, *self._alone(entries), *self._counts(), *apart)
        self.refuse_missing(path for entry in entries for path in self._used(entry))
        if "labels" in self.quantities:
            held = (entry.paths.get("labels") for part in every.values() for entry in part)
            settings, labelled = self.settings, filter(None, held)
            self._codes = label_codes(settings.class_codes, self.root, labelled, settings.classes)
            self.classes = self._codes.names
        return entries

    def read(self, entry: SampleFiles) -> Sample:
        paths = entry.paths
        sample = Sample(image=read_picture(paths["image"]), key=entry.key, source=self.name)
        values: dict[str, Tensor] = {}
        truths = entry.truths(self._required)
        if "flow" in truths:
            values["second"] = read_picture(paths["second"])
            check_shapes([paths["image"], paths["second"]], sample.image, values["second"])
        for quantity in sorted(truths):
            for name in sorted(self._required[quantity] - {"image", "second"}):
                values |= self._read(row_of(name), entry, sample.image)
        if "amodal" in values:
            values |= amodal_masks(values["modal"], values["amodal"], paths["modal"])
        return with_values(sample, values)

    def _parts(self) -> tuple[dict[str, list[SampleFiles]], list[str]]:
        """The samples by split, and sentences on files that belong to none."""
        if not self.settings.list:
            found = {name or "all": by_folders(self.root, name) for name in self._splits}
            unpaired = [note for _, notes in found.values() for note in notes]
            return {name: entries for name, (entries, _) in found.items()}, unpaired
        path = self.root / self.settings.list
        if not path.is_file():
            where = f"--data.{self.name}.list names a file below the root"
            raise UserError(f"{self.name}: {path} not found; {where}.")
        return read_list(path, self.root), []

    def _held_out(
        self, parts: dict[str, list[SampleFiles]], split: str
    ) -> tuple[dict[str, list[SampleFiles]], list[str]]:
        """The parts, those of training and evaluation made of all there is where no split for
        evaluation is named; and how, in a sentence."""
        train, held, share = (
            self.settings.split, self.settings.eval_split, self.settings.holdout
        )  # fmt: skip
        asked = split in (train, held) and train not in (held, "all") and held != "all"
        if not 0 <= share < 1:
            raise UserError(f"data.{self.name}.holdout={share}: a share, from 0 to below 1.")
        if not (asked and share and parts.keys() <= {"all", train}):
            return parts, []
        entries = [entry for part in parts.values() for entry in part]
        every = files_required()  # not what is asked for: who asks gets the same samples
        apart = hold_out(entries, share, {entry.key: entry.truths(every) for entry in entries})
        if split == held and not apart.held:
            both = f"--data.{self.name}.split all --data.{self.name}.eval_split all"
            raise UserError(
                f"{self.name}: of {len(entries)} in {self.root} none can be held out to evaluate "
                f"on, as none has truth like another. {both} evaluates on what is trained on."
            )
        verb = "is" if len(apart.held) == 1 else "are"
        counts = f"{len(apart.held)} of {len(entries)} pictures {verb} held out"
        return {train: apart.train, held: apart.held}, [f"{counts}: {apart.how}"]

    def _alone(self, entries: Sequence[SampleFiles]) -> Iterator[str]:
        """Truth that lacks other files: flow its second picture, a whole mask the visible one."""
        for quantity, kinds in self._required.items():
            lost = [kinds - e.paths.keys() for e in entries if quantity in e.paths]
            if count := sum(map(bool, lost)):
                needs = " and ".join(sorted(set[str]().union(*lost)))
                yield f"{quantity}: {count} of {len(lost)} files without {needs}, which it needs"

    def _counts(self) -> Iterator[str]:
        """How many of the pictures have a truth that not all have."""
        for quantity in sorted(self.quantities if self.truths else ()):
            count = sum(quantity in held for held in self.truths)
            if count < len(self.truths):
                yield f"{quantity}: {count} of {len(self.truths)} pictures"

    def _read(self, row: Field, entry: SampleFiles, image: Tensor) -> dict[str, Tensor]:
        """A field of a sample on the grid of its image, with the mask where it counts."""
        path = entry.paths[row.name]

        def upright(value: Tensor, path: Path = path, row: Field = row) -> Tensor:
            height, width = image.shape[-2:]
            return self._upright.bring(value, row, path, entry.paths["image"], (height, width))

        match row.name, row.kind:
            case "labels", _:
                return {"labels": upright(self._codes.read(path))}
            case _, "picture":
                return {row.name: upright(read_picture(path))}
            case _, "mask":
                return {row.name: upright(read_mask(path, self.settings.mask_inside))}
        assert row.read is not None, row.name
        if row.kind != "map":
            values = row.read(path, self.settings)
            return {row.name: upright(values) if row.dense else values}
        values, valid = row.read(path, self.settings)
        if not row.valid:
            return {row.name: upright(values)}
        counts = row_of(row.valid)
        valid = upright(valid, path, counts)
        if mask := entry.paths.get(row.valid):
            valid = valid & upright(read_mask(mask, self.settings.mask_inside), mask, counts)
            check_any(valid, mask, "no pixel that has a value")
        return {row.name: upright(values), row.valid: valid}

    def _used(self, entry: SampleFiles) -> Iterator[Path]:
        truths = entry.truths(self._required)
        kinds = {"image", "second"}.union(*(self._required[name] for name in truths))
        kinds |= {f"{name}_valid" for name in self.quantities}
        return (part_of(path)[0] for kind, path in entry.paths.items() if kind in kinds)
