"""A checkpoint as a run that has not begun: its averaged weights, without the training state."""

from __future__ import annotations

from pathlib import Path

from stepsight import checkpoint
from stepsight.coding import own_codec
from stepsight.conversion.write import Converted


def copied(path: Path) -> Converted:
    """The best (else last) checkpoint of a run, or a step folder, anew.

    Raises CheckpointError for one that is damaged, or whose VAE is not there.
    """
    saved = checkpoint.read(path)
    return Converted(
        saved.config,
        saved.tensors(checkpoint.BACKBONE),
        {task: (int(height), int(width)) for task, (height, width) in saved.meta["sizes"].items()},
        own_codec(saved),
        {"inherited_flops": saved.meta["training_flops"] + saved.meta.get("inherited_flops", 0.0)},
        statistics=saved.tensors(checkpoint.STATISTICS),
        notes=[f"the averaged weights of {saved.path}, of which no training state was taken"],
    )
