"""A model as a run folder that has not begun: everything that opens runs opens it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stepsight import checkpoint
from stepsight.coding import saved_codec
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.models.codec import Codec
from stepsight.pipeline.config import Profile

KEPT = ("family", "published")  # of a checkpoint from elsewhere, in its copies


@dataclass
class Converted:
    """Weights under the names of our backbone, and the run they belong to."""

    config: RunConfig
    weights: dict[str, Tensor]
    sizes: Mapping[str, tuple[int, int]]  # working height and width in pixels, by task
    codec: Codec | None = None  # None: unknown, to be put into the folder's codec/ by the user
    meta: dict[str, Any] = field(default_factory=dict)  # what else the checkpoint should say
    statistics: dict[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()  # what was read and done, for people
    family: str = ""  # of published checkpoints
    profile: Profile | None = None  # as published; None: as stepsight does
    assumed: Sequence[str] = ()  # what no file said


def copied(saved: checkpoint.Checkpoint) -> Converted:
    """The averaged weights of a checkpoint, without its training state. Raises CheckpointError for
    one whose VAE is not there."""
    spent = saved.meta["training_flops"] + saved.meta.get("inherited_flops", 0.0)
    return Converted(
        saved.config,
        saved.tensors(checkpoint.BACKBONE),
        saved.sizes,
        saved_codec(saved),
        {"inherited_flops": spent}
        | {name: saved.meta[name] for name in KEPT if name in saved.meta},
        statistics=saved.tensors(checkpoint.STATISTICS),
        family="stepsight",
        profile=Profile.of(saved.meta["profile"]) if saved.meta.get("profile") else None,
        notes=[f"the averaged weights of {saved.path}, of which no training state was taken"],
    )


def write(converted: Converted, out: Path) -> Path:
    """Write `out/checkpoints/step-000000` (and `out/codec/`), whole or not at all.

    Raises UserError if `out` holds anything already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not empty. Name a new folder.")
    meta = {
        "images_seen": 0,
        "training_flops": 0.0,
        "best": None,
        "sizes": {task: list(size) for task, size in converted.sizes.items()},
        "tasks": list(converted.config.tasks),
        "losses": {},
        "run": out.name,
        "revision": "",
        **converted.meta,
    }
    meta.setdefault("family", converted.family)
    if converted.profile is not None:
        meta["profile"] = asdict(converted.profile)
    if converted.codec is not None:
        meta["codec"] = converted.codec.name
    tensors = {checkpoint.BACKBONE: converted.weights, checkpoint.STATISTICS: converted.statistics}
    folder = out / "checkpoints"
    try:
        path = checkpoint.write(folder, 0, config=converted.config, meta=meta, tensors=tensors)
        if converted.codec is not None:
            converted.codec.save(out / checkpoint.CODEC)
        (out / "config.yaml").write_text(converted.config.to_yaml())
        for which in ("last", "best"):
            checkpoint.mark(folder, which, path.name)
        return path
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
