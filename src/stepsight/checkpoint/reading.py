"""Opening a checkpoint: what is read was verified."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepsight.checkpoint.format import (
    BACKBONE,
    COMPLETE,
    CONFIG,
    FORMAT,
    META,
    SHARDED,
    CheckpointError,
    Entry,
    check_held,
    fault,
    held,
    manifest_of,
    read_json,
)
from stepsight.checkpoint.locate import completed, resolve
from stepsight.checkpoint.meta import check_meta, check_outline
from stepsight.checkpoint.shards import Shapes, assembled, differing, fill, shapes
from stepsight.config import RunConfig, as_it_was, from_dict
from stepsight.config.files import read as read_config
from stepsight.errors import UserError

GROUPS = ("model", "tasks", "data", "diffusion", "training", "evaluation")  # of every version


@dataclass
class Checkpoint:
    """A step folder whose files are verified before they are read, and read one by one."""

    path: Path
    config: RunConfig
    meta: dict[str, Any]
    manifest: dict[str, Entry] = field(repr=False)
    verified: set[str] = field(default_factory=set, repr=False)  # files that match the manifest

    @property
    def home(self) -> Path:
        """The folder of its codec, evaluation and sweep: its run's, or itself if it travels."""
        return self.path if self.meta.get("alone") else self.path.resolve().parent.parent

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Working height and width in pixels, by task. Raises CheckpointError if one has none."""
        known = {task: (h, w) for task, (h, w) in self.meta.get("sizes", {}).items()}
        if lost := [task for task in self.config.tasks if task not in known]:
            raise CheckpointError(f"{self.path / META} has no size of {', '.join(lost)}.")
        return known

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, such as BACKBONE, or of its shards; {} if it is absent."""
        files = self.sound(name)
        return assembled(files) if files else {}

    def load(self, net: nn.Module, name: str, device: str | torch.device = "cpu") -> None:
        """Give `net`, whose parameters may be on the meta device, those of one file, or of its
        shards, on `device`. They are read one by one to where they stay, laid out as those of `net`
        are; buffers that are not stored have to be real.

        Raises CheckpointError, listing what differs, for the weights of another model.
        """
        where = self.path / name
        weights = {key: torch.empty_like(p, device=device) for key, p in net.state_dict().items()}
        fill(weights, self.sound(name), where)
        net.load_state_dict(weights, assign=True)
        net.to(device)

    def sound(self, name: str) -> list[Path]:
        """The files that hold the tensors of one file: itself, its shards, or none. They are
        verified, and hold what was written to them, or it is a CheckpointError."""
        names = held(self.manifest, name)
        if names:
            self.verify(*names)
            self.shapes(name)
        return [self.path / one for one in names]

    def shapes(self, name: str) -> Shapes:
        """The shapes of the tensors of one file, or of its shards, without reading them."""
        found = shapes([self.path / one for one in held(self.manifest, name)])
        check_outline(self.meta, name, found, self.path)
        return found

    def verify(self, *names: str) -> None:
        """Compare files, by default all of them, with the manifest; each is looked at once.

        Raises CheckpointError naming the file and the reason.
        """
        for name in names or self.manifest:
            if name not in self.verified:
                _compare(self.path / name, self.manifest[name], thorough=True)
                self.verified.add(name)

    def digest(self, name: str = BACKBONE) -> str:
        """12 hex digits that name the averaged weights, or those of another file."""
        files = held(self.manifest, name)
        if files == [name]:
            return self.manifest[name]["sha256"][:12]
        joint = "".join(self.manifest[name]["sha256"] for name in files)
        return hashlib.sha256(joint.encode()).hexdigest()[:12]


def read(path: str | Path, prefer: str = "best", *, lazy: bool = False) -> Checkpoint:
    """Open and verify the checkpoint that `path` means (see `resolve`).

    Every file is compared with the manifest: lazy: by size, and by digest when it is first read, so
    that what is not read costs nothing. Raises CheckpointError naming the file and the reason.
    """
    folder = resolve(path, prefer)
    if not (folder / COMPLETE).exists():
        others = [one.name for one in completed(folder.parent)]
        instead = f" Use {others[-1]}." if others else ""
        raise CheckpointError(f"{folder} has no COMPLETE marker: it is unfinished.{instead}")
    meta = read_json(folder / META)
    if meta.get("format") not in (FORMAT, SHARDED):
        raise CheckpointError(
            f"{folder}: format {meta.get('format')!r}, this version reads {FORMAT} and {SHARDED}. "
            f"Use the version of stepsight that wrote it."
        )
    manifest = manifest_of(folder)
    check_held(folder, manifest, (META, CONFIG))
    small = {META, CONFIG}
    for name, entry in manifest.items():
        _compare(folder / name, entry, thorough=name in small or not lazy)
    check_meta(meta, folder / META)
    check_held(folder, manifest, meta.get("tensors", [BACKBONE]))
    return Checkpoint(
        folder, _config(folder / CONFIG), meta, manifest, small if lazy else set(manifest)
    )


def _compare(path: Path, entry: Entry, thorough: bool) -> None:
    if wrong := fault(path, entry, thorough):
        raise CheckpointError(f"{path} {wrong}. Copy the checkpoint again, or use another.")


def _config(path: Path) -> RunConfig:
    """A stored configuration: it names every group, since it is complete."""
    try:
        values = read_config(str(path))
        if lost := [name for name in GROUPS if name not in values]:
            raise CheckpointError(f"{path} lacks {', '.join(lost)}: it is not whole.")
        return from_dict(as_it_was(values), str(path))
    except UserError:
        raise
    except Exception as error:  # of a parser that was fed what no run writes
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"{path} is not the configuration of a run: {reason}. "
            f"Copy the checkpoint again, or use another."
        ) from None


def load_weights(net: nn.Module, weights: dict[str, Tensor], where: str | Path) -> None:
    """Load strictly: missing, extra and mis-shaped names are one error that lists them."""
    check_weights(net, weights, where)
    net.load_state_dict(weights)


def check_weights(net: nn.Module, weights: dict[str, Tensor], where: str | Path) -> None:
    """Raise CheckpointError, listing what differs, unless `weights` are those of such a network."""
    differing({name: value.shape for name, value in weights.items()}, net.state_dict(), where)
