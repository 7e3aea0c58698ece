"""How near generated pictures come to real ones, without a pretrained network.

Which picture of a class a sample resembles is chance, so no distance between two pictures scores a
generator. The energy score (Gneiting & Raftery 2007, section 4.3) does: it compares the members of
an ensemble, taken as a distribution, with one real picture and credits their own spread. Its mean
over pictures is least for the true distribution of whatever the features see, and those of
`moments` see colour and contrast by place, no shapes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.metrics.masked import Rows

CELLS = 4  # along either side


def moments(pictures: Tensor) -> Tensor:
    """Mean and standard deviation of every channel in each of 4 x 4 cells, "b c h w" -> "b 32c"."""
    x = pictures.double()
    mean, square = F.adaptive_avg_pool2d(x, CELLS), F.adaptive_avg_pool2d(x.square(), CELLS)
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return torch.cat([mean, deviation], dim=1).flatten(1)


def generation_rows(members: Tensor, real: Tensor) -> Rows:
    """Scores of generated `members "e b 3 h w"` against `real "b 3 h' w'"`, both in [-1, 1].

        energy  (1/e) sum_i |f_i - f| - (1/2e^2) sum_ij |f_i - f_j|, with the `moments` f and the
                root mean square over them as the norm: units of the picture's range
    0 only if all members have the moments of the real picture. A single member has no spread, so
    at e = 1 a mean picture may beat a true sample, which it does not when there are many: compare
    scores at the same e. Not comparable with FID.
    """
    truth = moments(real)
    drawn = torch.stack([moments(member) for member in members])
    unit = math.sqrt(truth.shape[1])
    error = torch.linalg.vector_norm(drawn - truth, dim=2).mean(dim=0)
    spread = torch.linalg.vector_norm(drawn[:, None] - drawn, dim=3).mean(dim=(0, 1))
    return {"n": torch.ones_like(error), "energy": (error - spread / 2) / unit}
