"""Randomness as a pure function of names and numbers, never of how many draws came before.

Every stream in stepsight (scene parameters, data order, noise levels, noise) is keyed by what it is
for, e.g. `generator(seed, "noise", image_number)`. So resuming is seeking, and nothing depends on
the number of processes or workers, or on the neighbours in a batch.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a tuple of names and numbers; equal on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU torch generator for the stream named by `key`."""
    return torch.Generator().manual_seed(seed_of(*key))


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A numpy generator for the stream named by `key` (permutations, scene parameters)."""
    return np.random.default_rng(seed_of(*key))
