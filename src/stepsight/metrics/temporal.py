"""Flicker of depth in a film, by its true flow.

A film is fitted to its truth as a whole, by one scale and shift: what changes from frame to frame
stays in it. A point x of frame n is seen at x + F_n(x) in frame n + 1, where F_n is the true flow;
pairs count where both frames have a valid depth and the next frame shows the point. With p the
fitted prediction and g the truth, both fetched bilinearly in the logarithm:

    warped    mean |ln p_{n+1}(x + F) - ln p_n(x)|: the relative change along the motion
    flicker   the same of ln p - ln g: without what the truth changes, as cameras come nearer
    opw       mean |p_{n+1}(x + F) - p_n(x)|, metres: the optical flow based warping metric of
              Wang et al. (FMNet 2022; Neural Video Depth Stabilizer, ICCV 2023). There flow is
              predicted and a photometric weight stands for the mask; here both are true. Their
              script of inference prints something else: each frame less its median over its mean
              deviation, weighted, times 10.
    abs_rel   mean |p - g| / g of every frame, under that one fit

A prediction pays for `flicker` with a delay as well: what is frozen while the truth moves flickers.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.align import Space, align
from stepsight.metrics.depth import clipped, scored_pixels
from stepsight.metrics.masked import Rows
from stepsight.metrics.photometric import warped
from stepsight.metrics.protocol import Protocol


def fitted_film(
    depth: Tensor, truth: Tensor, valid: Tensor, protocol: Protocol, given: Space = "depth"
) -> Tensor:
    """Predictions "t 1 h w" of all frames of a film in metres, float64, by one fit to the truth
    "t 1 h w" where `valid "t 1 h w"`, clipped to the protocol's range."""
    whole, true, counts = (rearrange(x, "t 1 h w -> 1 1 (t h) w") for x in (depth, truth, valid))
    assert protocol.space is not None, protocol.name
    fitted = align(whole, true, counts, protocol.alignment, protocol.space, given=given)
    film = clipped(fitted, true, counts, protocol)
    return rearrange(film, "1 1 (t h) w -> t 1 h w", t=len(depth))


def temporal_rows(
    depth: Tensor,
    truth: Tensor,
    valid: Tensor,
    flow: Tensor,
    seen: Tensor,
    protocol: Protocol,
    given: Space = "depth",
) -> Rows:
    """The means of the module docstring for a film of t frames, a row "t - 1" each: of the pairs,
    and of `abs_rel` of the later frame of each.

    depth, truth, valid: "t 1 h w" (`fitted_film`). flow: "t-1 2 h w", pixels, to the next frame.
    seen: bool "t-1 1 h w", the pixels whose point the next frame shows.
    """
    valid = scored_pixels(truth, valid, protocol)
    p = fitted_film(depth, truth, valid, protocol, given)
    log_p, log_g = p.log(), torch.where(valid, truth.double(), 1.0).log()
    flow = flow.double()
    there = warped(valid[1:].double(), flow) > 1 - 1e-6  # all that is fetched is valid
    both = valid[:-1] & seen & there
    change = warped(log_p[1:], flow) - log_p[:-1]
    true_change = warped(log_g[1:], flow) - log_g[:-1]
    error = (p - truth).abs() / torch.where(valid, truth, 1.0)
    return {
        "n": masked.count(both),
        "flicker": masked.mean((change - true_change).abs(), both),
        "warped": masked.mean(change.abs(), both),
        "opw": masked.mean((warped(p[1:], flow) - p[:-1]).abs(), both),
        "abs_rel": masked.mean(error, valid)[1:],
    }
