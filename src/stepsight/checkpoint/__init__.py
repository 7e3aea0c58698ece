"""Checkpoints: what a run writes, whole or not at all, and how it is found, verified and read.

`format` says what a step folder holds and how it is sealed, `snapshot` writes one and `saver` does
so beside the training, `shards` splits tensors over processes and puts them together, `locate`
says which folder is meant, `archive` reads and writes tars, `hub` fetches and pushes, `reading`
opens one, `resuming` steps over damaged ones, `lock` keeps a second writer out.
"""

from stepsight.checkpoint.format import (
    BACKBONE,
    CODEC,
    FORMAT,
    OPTIMIZER,
    RAW,
    STATISTICS,
    WEIGHTS,
    CheckpointError,
    disk_error,
    step_name,
)
from stepsight.checkpoint.hub import local, push
from stepsight.checkpoint.locate import PACKAGED, completed, mark, prune, resolve
from stepsight.checkpoint.lock import LOCK, RunLock
from stepsight.checkpoint.reading import Checkpoint, check_weights, load_weights, read
from stepsight.checkpoint.resuming import read_best, read_newest, resumable, settle
from stepsight.checkpoint.saver import Saver
from stepsight.checkpoint.shards import load_into
from stepsight.checkpoint.snapshot import Snapshot, amend, write

__all__ = [
    "BACKBONE",
    "CODEC",
    "FORMAT",
    "LOCK",
    "OPTIMIZER",
    "PACKAGED",
    "RAW",
    "STATISTICS",
    "WEIGHTS",
    "Checkpoint",
    "CheckpointError",
    "RunLock",
    "Saver",
    "Snapshot",
    "amend",
    "check_weights",
    "completed",
    "disk_error",
    "load_into",
    "load_weights",
    "local",
    "mark",
    "prune",
    "push",
    "read",
    "read_best",
    "read_newest",
    "resolve",
    "resumable",
    "settle",
    "step_name",
    "write",
]
