"""What the network is asked for, how its errors weigh, and how its answers become clean images.

One `Diffusion` serves training (`loss`) and sampling (`denoiser`, `sample`): both feed the network
and read its output through the same lines.

Parametrisations, for x_t = alpha x0 + sigma eps:
* "x": the clean x0;
* "eps": the noise;
* "v": alpha eps - sigma x0 for variance-preserving schedules (Salimans & Ho 2022), and the velocity
  eps - x0 for rectified flow. Both are `v = p x0 + q eps` with alpha q - sigma p = 1, which gives
  x0 = q x_t - sigma v and eps = alpha v - p x_t (`Schedule.velocity`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.samplers import SAMPLERS, Denoise, StepNoise, steps_for
from stepsight.errors import UserError
from stepsight.schedule import Schedule, build_schedule
from stepsight.types import Coded

# (x "b c h w", cond "b k h w", time "b" float32, label "b", features=None) -> "b c h w"
Network = Callable[..., Tensor]


class Diffusion:
    """A schedule with a parametrisation, a weighting and a sampler.

    Times `t` are "b" tensors in [0, 1]; images are "b c h w". Raises UserError for settings that
    contradict each other.
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        self.settings = settings
        self.schedule = build_schedule(settings)
        _check(settings, self.schedule)

    def draw_times(self, u: Tensor) -> Tensor:
        """Training times "b" from uniform numbers `u` "b" in (0, 1).

        "logit_normal" is Esser et al. 2024, eq. 19; the shift is their eq. 23.
        """
        s = self.settings
        if s.density == "logit_normal":
            u = torch.sigmoid(s.density_mean + s.density_std * torch.special.ndtri(u))
        return shifted(u, s.shift)

    def corrupt(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha x0 + sigma eps."""
        alpha, sigma = self._levels(t, x0)
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should answer."""
        if self.settings.prediction == "x":
            return x0
        if self.settings.prediction == "eps":
            return noise
        p, q = self._velocity(t, x0)
        return p * x0 + q * noise

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean image that the network's output stands for."""
        alpha, sigma = self._levels(t, x_t)
        if self.settings.prediction == "x":
            return output.to(x_t.dtype)
        if self.settings.prediction == "eps":
            return (x_t - sigma * output) / alpha
        return self._velocity(t, x_t)[1] * x_t - sigma * output

    def to_eps(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that the output stands for; undefined at t = 0 for "x"."""
        alpha, sigma = self._levels(t, x_t)
        if self.settings.prediction == "x":
            return (x_t - alpha * output) / sigma
        if self.settings.prediction == "eps":
            return output.to(x_t.dtype)
        return alpha * output - self._velocity(t, x_t)[0] * x_t

    def to_v(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The velocity that the output stands for; undefined at t = 0 for "x"."""
        alpha, sigma = self._levels(t, x_t)
        p, q = self._velocity(t, x_t)
        if self.settings.prediction == "x":
            return (q * x_t - output) / sigma
        if self.settings.prediction == "eps":
            return (p * x_t + output) / alpha
        return output.to(x_t.dtype)

    def weight(self, t: Tensor) -> Tensor:
        """Weight "b" of the squared error of the network's output.

        "min_snr" (Hang et al. 2023) weighs the error of x0 by min(SNR, gamma). An
        output error e is an x0 error of e, sigma/alpha e and sigma e for x, eps and v.
        """
        if self.settings.weighting == "uniform":
            return torch.ones_like(t)
        signal, noise = self.schedule.alpha(t) ** 2, self.schedule.sigma(t) ** 2
        gamma = self.settings.min_snr_gamma
        if self.settings.prediction == "x":
            return (signal / noise).clamp(max=gamma)
        if self.settings.prediction == "eps":
            return (gamma * noise / signal).clamp(max=1)
        return torch.minimum(signal, gamma * noise)

    def loss(self, net: Network, coded: Coded, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted squared error summed over each row's valid entries "b", and their count "b".

        The caller divides by the count of the whole batch, over all processes.
        """
        assert coded.x is not None and coded.valid is not None, "a loss needs a target"
        output = _ask(net, coded, self.corrupt(coded.x, noise, t), self.schedule.condition(t))
        error = (output - self.target(coded.x, noise, t)).square() * coded.valid
        total = error.sum(dim=(1, 2, 3))
        return total * self.weight(t).to(total), coded.valid.sum(dim=(1, 2, 3))

    def denoiser(self, net: Network, coded: Coded) -> Denoise:
        """`denoise(x, t) -> x0` for samplers: t is a scalar or "b"."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            t = t.expand(len(x))
            return self.to_x0(_ask(net, coded, x, self.schedule.condition(t)), x, t)

        return denoise

    def sample(self, denoise: Denoise, noise: StepNoise, nfe: int) -> Tensor:
        """Walk from pure noise to data with exactly `nfe` model calls of the settings' sampler.

        `noise(0)` "b c h w" is the start (unit variance, also where alpha(1) > 0, as published
        samplers have it), `noise(i + 1)` the noise of step i. Raises UserError for an `nfe` that
        the sampler cannot spend.
        """
        steps = steps_for(self.settings.sampler, nfe)
        return SAMPLERS[self.settings.sampler](
            denoise,
            noise(0),
            shifted(
                self.schedule.times(steps, self.settings.spacing), self.settings.sampling_shift
            ),
            schedule=self.schedule,
            noise=lambda step: noise(step + 1),
            eta=self.settings.eta,
        )

    def _levels(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, shaped to multiply x."""
        return _rows(self.schedule.alpha(t), x), _rows(self.schedule.sigma(t), x)

    def _velocity(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """p and q of v = p x0 + q eps, shaped to multiply x."""
        p, q = self.schedule.velocity(t)
        return _rows(p, x), _rows(q, x)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise (shift above 1) or data: s t / (1 + (s - 1) t), which keeps the
    ends. Esser et al. 2024, eq. 23, for resolution; here for conditions that already tell much."""
    return shift * t / (1 + (shift - 1) * t)


def _rows(value: Tensor, x: Tensor) -> Tensor:
    """One number per row "b" -> "b 1 1 1" of x's dtype and device."""
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def _ask(net: Network, coded: Coded, x: Tensor, time: Tensor) -> Tensor:
    return net(x, coded.cond, time.to(x.device), coded.label, features=coded.features)


def _check(settings: DiffusionSettings, schedule: Schedule) -> None:
    """Refuse settings under which no training or sampling could work."""
    if settings.prediction == "eps" and schedule.alpha(torch.ones(())) == 0:
        raise UserError(
            "diffusion.prediction: 'eps' says nothing about the image at t = 1, which is pure noise"
            f" under the schedule '{settings.schedule}' with these settings. Choose prediction 'v'"
            " or 'x', or a schedule other than rectified_flow without zero_terminal_snr."
        )
    for name in ("shift", "sampling_shift"):
        value = getattr(settings, name)
        if value <= 0:
            raise UserError(f"diffusion.{name}: {value} is not above 0. 1 means no shift.")
    if not 0 <= settings.eta <= 1:
        raise UserError(
            f"diffusion.eta: {settings.eta} lies outside 0 (no noise) to 1 (ancestral)."
        )
