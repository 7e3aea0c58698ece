"""Are discontinuities where they should be? F1 of depth edges, and of outlines, within one pixel.

Mean errors hardly notice a blurred outline; this is the number that does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.contours import edge_strength

JUMP = 0.2  # of log depth: an edge is a step by at least exp(0.2), 22 %


def edge_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """`edge_f1` of aligned, positive `pred "b 1 h w"` against `truth`, and `edges`, its count.

    P = share of predicted edge pixels with a true one in their 3 x 3 neighbourhood, R = the
    converse, F1 = 2PR / (P + R); NaN where neither has an edge (`edges`, the number of edge pixels
    of both, is 0 there). A pixel is judged only if its whole neighbourhood is valid.
    """
    return _agreement(depth_edges(pred, valid), depth_edges(truth, valid), valid)


def outline_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """The same for outlines of masks or class maps, integer or bool "b 1 h w": pixels that have
    another value in their 3 x 3 neighbourhood."""
    return _agreement(_outline(pred), _outline(truth), valid)


def _agreement(p: Tensor, g: Tensor, valid: Tensor) -> Rows:
    """F1 of predicted and true edge pixels, bool "b 1 h w", where all around is valid."""
    judged = ~_near(~valid)
    p, g = p & judged, g & judged
    p_hits, g_hits = masked.count(p & _near(g)), masked.count(g & _near(p))
    p_all, g_all = masked.count(p), masked.count(g)
    # 2PR / (P + R) in whole numbers: the denominator is 0 only where nothing hits, and F1 is 0.
    f1 = 2 * p_hits * g_hits / (p_hits * g_all + g_hits * p_all).clamp(min=1)
    return {"edge_f1": torch.where(p_all + g_all > 0, f1, torch.nan), "edges": p_all + g_all}


def depth_edges(depth: Tensor, valid: Tensor) -> Tensor:
    """Bool "b 1 h w": Sobel magnitude of log depth at least that of a straight step by `JUMP`."""
    slope = edge_strength(torch.where(valid, depth.double(), 1.0).log())
    return slope >= JUMP / 2  # a step is spread over two pixels


def _outline(labels: Tensor) -> Tensor:
    values = F.pad(labels.float(), (1, 1, 1, 1), mode="replicate")
    highest, lowest = (F.max_pool2d(sign * values, kernel_size=3, stride=1) for sign in (1, -1))
    return highest != -lowest


def _near(mask: Tensor) -> Tensor:
    """Within one pixel of the mask, diagonals included."""
    return F.max_pool2d(mask.float(), kernel_size=3, stride=1, padding=1) > 0
