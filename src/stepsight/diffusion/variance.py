"""What trains a learned variance: the variational bound of Nichol & Dhariwal 2021.

The network answers, besides its prediction, a v for every entry, which places the log variance of
its denoising step between that of the true posterior q(x_s | x_t, x0) and that of the forward step:
log variance = (v + 1)/2 log beta + (1 - v)/2 log beta-tilde (their eq. 15, v counted from -1 to 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stepsight.schedule import LEVELS, Schedule

# L_hybrid = L_simple + 0.001 L_vlb (eq. 16), where L_vlb sums over all levels and is in bits, as in
# the paper's published code: a mean over drawn levels counts LEVELS times.
BOUND_WEIGHT = 0.001 * LEVELS


def variational_bound(schedule: Schedule, error: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) "b c h w" in bits, for the level s before each time.

    error: what the network's x0 is off by, "b c h w". v: its variance output, "b c h w".
    t: "b" in [0, 1] on a variance-preserving schedule; s = t - 1/1000.

    With SNR = alpha^2 / sigma^2 and gain = SNR(s) - SNR(t), the squared distance of the two means
    is gain error^2 beta-tilde (Kingma et al. 2021, eq. 13), and beta / beta-tilde is
    sigma^2(t) / sigma^2(s). So with r = log variance - log beta-tilde the KL is, in nats,
    (r + exp(-r) (1 + gain error^2) - 1) / 2.

    The first two levels share the step between them: the paper scores the first by a likelihood of
    8-bit images, which depth or latents are not, and lends it the second's beta-tilde.
    """
    t = (t.double() if t.device.type == "cpu" else t.float()).clamp(min=2 / LEVELS)
    s = t - 1 / LEVELS
    width = 2 * (schedule.sigma(t).log() - schedule.sigma(s).log())  # log beta - log beta-tilde
    gain = schedule.log_snr(s).exp() - schedule.log_snr(t).exp()
    r = _rows(width, error) * (v + 1) / 2
    nats = (r + torch.expm1(-r) + torch.exp(-r) * _rows(gain, error) * error.square()) / 2
    return nats / math.log(2)


def _rows(value: Tensor, like: Tensor) -> Tensor:
    """One number per row "b" -> "b 1 1 1"."""
    return value.to(like)[:, None, None, None]
