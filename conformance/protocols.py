"""Protocols beside their publishers' evaluators: scores of the same random maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.random import RandomState
from torch import Tensor

from conformance.rows import Differences, arrays, relative, row
from stepsight.metrics.alignment.ransac import consensus_fit
from stepsight.metrics.protocol import get
from stepsight.metrics.reduce import reduce
from stepsight.tasks.table import score
from stepsight.types import Batch

Names = Mapping[str, str]  # ours by theirs


def stored(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The maps, and the evaluator's answers."""
    return arrays(folder / "inputs.npz"), json.loads((folder / "metrics.json").read_text())


def batch(height: int, width: int, count: int = 1, **truth: Any) -> Batch:
    """Truth of `count` pictures called 0, 1, .."""
    keys = [str(number) for number in range(count)]
    return Batch(torch.zeros(count, 3, height, width), keys, ["golden"] * count, **truth)


def picture(maps: Mapping[str, Tensor], number: int, *names: str) -> list[Tensor]:
    """The named maps "1 c h w" of a picture."""
    found = (maps[f"{number}_{name}"] for name in names)
    return [x[None] if x.ndim == 3 else x[None, None] for x in found]


def differences(
    names: Names, ours: Mapping[str, float], theirs: Mapping[str, float], unit: float = 1.0
) -> Differences:
    """Of each metric, relative; `unit` is what theirs is in where ours is a share."""
    return {
        f"{their}": relative(ours[name] * (unit if name.startswith("below") else 1), theirs[their])
        for their, name in names.items()
    }


def worst(cases: Mapping[str, Differences]) -> Differences:
    """The largest difference of every case."""
    return {name: max(found.values()) for name, found in cases.items()}


PIXEL_PERFECT = {f"d{k}": f"delta{k}" for k in ("0.5", "1", "2", "3")} | {"abs_rel": "abs_rel"}


@row(
    "protocol",
    "pixel-perfect-depth",
    oracle="gangweix/pixel-perfect-depth at 427a86f, stored answers",
    bar=1e-6,
    golden="metrics-pixel-perfect-depth",
)
def pixel_perfect_depth(folder: Path) -> Differences:
    """AbsRel and delta 0.5 to 3 of affine-invariant ln(1 + d), with pairs of pixels drawn from
    numpy's global generator at three seeds; and the aligned map at the first."""
    maps, answers = stored(folder)
    rule = get("pixel-perfect-depth")
    aligned_rule = replace(rule, alignment="none", space="depth")
    found: dict[str, float] = {}
    for number in range(4):
        truth, pred, valid = picture(maps, number, "truth", "prediction", "mask")
        of = batch(*truth.shape[-2:], depth=truth, depth_valid=valid)
        for seed in range(3):
            scale, shift = consensus_fit(pred, truth.double().log1p(), valid, [RandomState(seed)])
            aligned = torch.expm1(scale * pred.double() + shift)
            ours = reduce(score(aligned, of, aligned_rule), aligned_rule)
            theirs = answers[str(number)][f"seed_{seed}"]
            found |= worst({f"{number}, seed {seed}": differences(PIXEL_PERFECT, ours, theirs)})
            if seed == 0:
                (map_of_theirs,) = picture(maps, number, "aligned_seed_0")
                at_most = aligned.clamp(1e-3, float(truth[valid].amax()))
                found[f"{number}, aligned map"] = relative(at_most, map_of_theirs)
        if number != 1:  # whose line depends on the pairs
            ours = reduce(score(pred, of, rule, given="log1p"), rule)
            theirs = answers[str(number)]["seed_0"]
            found |= worst({f"{number}, as scored": differences(PIXEL_PERFECT, ours, theirs)})
    return found
