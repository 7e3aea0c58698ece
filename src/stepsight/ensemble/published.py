"""Published rules of merging, for comparison: the alignment of Marigold (Ke et al. 2024) foremost.

It minimises, over scales and shifts, the sum over pairs of the RMS difference, plus a small penalty
on how far the median map is from spanning [0, 1]. The optimum of that cost is the collapsed one:
with all scales 0 every pair agrees, and nothing but the penalty, 0.02, is left to pay. The early
stop after two iterations alone keeps the answer from it; more iterations make it worse.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.ensemble.central import pick

REGULARISER = 0.02  # all four: diffusers' MarigoldDepthPipeline.ensemble_depth
ITERATIONS = 2
TOLERANCE = 1e-3
LONGEST_SIDE = 1024
LEAST_ANGLE = 0.999  # its cosine: GeoWizard's ensemble_normals


def merge_published(
    members: Tensor, longest: int = LONGEST_SIDE, together: bool = False
) -> tuple[Tensor, Tensor]:
    """Merge members "e b 1 h w": (merged in [0, 1], uncertainty in the same units), "b 1 h w".

    longest: the longest side at which they are aligned, in pixels; 0: as they are. together:
    minimise the RMS difference of all pairs taken together, as Marigold's first release and
    GeoWizard do, in the place of the sum of each pair's. The two iterations are so few
    that the answer follows the last bits of the input: give what was published, maps in [0, 1].
    """
    merged = [align_published(maps[:, 0], longest, together)[:2] for maps in members.unbind(1)]
    values, deviation = (torch.stack(part)[:, None] for part in zip(*merged, strict=True))
    return values, deviation


def align_published(
    maps: Tensor, longest: int = LONGEST_SIDE, together: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Merge maps "e h w": (median stretched to [0, 1], median deviation, scale "e", shift "e").

    Rounding follows the original: parameters float64, maps float32, the lower of two middle values
    as the median.
    """
    small = _downsize(maps.float(), longest)
    scale, shift = (part.float().to(maps) for part in fit(small, together=together))
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    merged = aligned.median(dim=0).values
    deviation = (aligned - merged).abs().median(dim=0).values
    low = merged.min()
    width = (merged.max() - low).clamp_min(1e-6)
    return (merged - low) / width, deviation / width, scale / width, (shift - low) / width


def fit(
    maps: Tensor, iterations: int = ITERATIONS, together: bool = False
) -> tuple[Tensor, Tensor]:
    """Scale and shift "e" float64, from every member's own range by BFGS on `cost`."""
    from scipy.optimize import minimize  # slow to import, needed for this rule alone

    low, high = maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))
    scale = 1 / (high - low).clamp_min(1e-6)
    start = torch.cat([scale, -scale * low]).cpu().numpy().astype(np.float64)
    optimum = minimize(
        lambda parameters: cost(parameters, maps, together),
        start,
        method="BFGS",
        tol=TOLERANCE,
        options={"maxiter": iterations},
    )
    scale, shift = torch.from_numpy(optimum.x).chunk(2)
    return scale, shift


def cost(parameters: np.ndarray, maps: Tensor, together: bool = False) -> float:
    """Sum over pairs of the RMS difference, or that of all pairs together, plus how far the median
    map is from spanning [0, 1]."""
    scale, shift = torch.from_numpy(parameters).to(maps.dtype).to(maps.device).chunk(2)
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    pairs = torch.combinations(torch.arange(len(maps))).tolist()
    apart = [aligned[i] - aligned[j] for i, j in pairs]
    merged = aligned.median(dim=0).values
    near, far = merged.min().abs(), (1 - merged.max()).abs()
    if together:  # rounded to float32 at every step, as the answer follows the last bits
        return (_rms(torch.stack(apart)) + REGULARISER * (near + far)).item()
    return sum(_rms(one).item() for one in apart) + REGULARISER * (near.item() + far.item())


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _downsize(maps: Tensor, longest: int) -> Tensor:
    """Nearest-neighbour to a longest side of at most `longest`."""
    h, w = maps.shape[1:]
    if not longest or max(h, w) <= longest:
        return maps
    size = [side * longest // max(h, w) for side in (h, w)]
    return F.interpolate(maps[None], size=size, mode="nearest-exact")[0]


def merge_published_normals(normals: Tensor) -> Tensor:
    """Of unit vectors "e b 3 h w" the member, "b 3 h w", that is nearest to their mean over the
    whole image, as GeoWizard has it (Fu et al. 2024): the mean is that of azimuth and inclination,
    whose seam is at azimuth pi; near are small sums of angles, each within 2.6 to 177.4 degrees.
    """
    x, y, z = normals.unbind(2)
    azimuth = torch.atan2(y, x).mean(dim=0)
    inclination = torch.atan2(torch.hypot(x, y), z).mean(dim=0)
    ring, height = inclination.sin(), inclination.cos()
    centre = torch.stack([ring * azimuth.cos(), ring * azimuth.sin(), height], dim=1)
    cosine = (normals * centre).sum(dim=2).clamp(-LEAST_ANGLE, LEAST_ANGLE)
    return pick(normals, cosine.arccos().sum(dim=(2, 3)).argmin(dim=0))
