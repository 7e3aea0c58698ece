"""Does a flow lead from its picture to the next one? Otherwise: u and v swapped, signs, units.

The second picture is fetched from where the flow points, and from where other readings of the same
numbers point. Another reading is named where it explains the pictures clearly better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.data.plausible.rules import Finding, PlausibleRule
from stepsight.types import Sample

POINTS = 1 << 14  # of the picture at which differences are taken
LARGEST = 40.0  # grey levels: larger differences are occlusions, and count as that
COVERED = 0.02  # share of the points that must stay in the picture under both readings
CLEARLY = 0.7  # of the difference as given: less is another reading's
EXPLAINS = 0.8  # of the difference without motion: less is explained by the flow

Reading = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]  # u, v, width, height
READINGS: Mapping[str, Reading] = {
    "with u and v swapped": lambda u, v, w, h: (v, u),
    "with both signs turned, or its two pictures exchanged": lambda u, v, w, h: (-u, -v),
    "with the sign of u turned": lambda u, v, w, h: (-u, v),
    "with the sign of v turned": lambda u, v, w, h: (u, -v),
    "with u and v swapped and turned": lambda u, v, w, h: (-v, -u),
    "as shares of the width and height": lambda u, v, w, h: (u * w, v * h),
    "as shares of half the width and height": lambda u, v, w, h: (u * w / 2, v * h / 2),
}


def explained(sample: Sample) -> tuple[dict[str, float], float] | None:
    """Differences of the two pictures along each reading over those along the flow as given, and
    the latter over those without motion; None without a second picture."""
    first, second, flow = sample.image, sample.second, sample.flow
    if second is None or flow is None or second.shape != first.shape:
        return None
    height, width = first.shape[-2:]
    step = max(1, round((height * width / POINTS) ** 0.5))
    a, b = (
        F.avg_pool2d(x.float()[None], 5, 1, 2, count_include_pad=False) for x in (first, second)
    )
    u, v = flow[:, ::step, ::step]
    known = u.isfinite() & v.isfinite()
    if sample.flow_valid is not None:
        known = known & sample.flow_valid[0, ::step, ::step]
    grid = torch.arange(0, height, step)[:, None], torch.arange(0, width, step)

    def along(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Differences "h w", and where the flow stays in the picture."""
        x, y = grid[1] + u, grid[0] + v
        inside = known & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        where = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        there = F.grid_sample(b, where.nan_to_num()[None], align_corners=False)
        gap = (a[..., ::step, ::step] - there).abs().mean(1)[0]
        return gap.clamp(max=LARGEST), inside

    given, kept = along(u, v)
    ratios = dict[str, float]()
    for name, reading in READINGS.items():
        gap, inside = along(*reading(u, v, width, height))
        both = kept & inside
        if float(both.float().mean()) >= COVERED:
            ratios[name] = float(gap[both].mean() / given[both].mean().clamp_min(1e-3))
    still, everywhere = along(torch.zeros_like(u), torch.zeros_like(v))
    both = kept & everywhere
    if not both.any():
        return None
    return ratios, float(given[both].mean() / still[both].mean().clamp_min(1e-3))


def _misread(sample: Sample, source: Any) -> Finding:
    found = explained(sample)
    if found is None or not found[0]:
        return None
    ratios, explains = found
    best = min(ratios, key=lambda name: ratios[name])
    if ratios[best] < CLEARLY:
        return {"how": best, "ratio": f"{ratios[best]:.2f}"}
    return False if explains < EXPLAINS and ratios[best] > 1 else None


def _alike(sample: Sample, source: Any) -> Finding:
    assert sample.second is not None
    return torch.equal(sample.image, sample.second)


RULES = (
    PlausibleRule(
        "misread",
        "flow",
        "flow explains the second picture much better {how}: differences are {ratio} of those "
        "as it is stored",
        "Look at how it was written.",
        _misread,
        share=0.5,
        answers=True,
    ),
    PlausibleRule(
        "two pictures",
        "second",
        "the second picture is the first",
        "Name the frame that follows.",
        _alike,
        grave=False,
        answers=True,
    ),
)
