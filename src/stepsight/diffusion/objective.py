"""What the network is asked for, how its errors weigh, and how its answers become clean images.

One `Diffusion` serves training (`loss`) and sampling (`denoiser`, `sample`): both feed the network
and read its output through the same lines.

Parametrisations, for x_t = alpha x0 + sigma eps:
* "x": the clean x0;
* "eps": the noise;
* "v": alpha eps - sigma x0 for variance-preserving schedules (Salimans & Ho 2022), and the velocity
  eps - x0 for rectified flow. Both are `v = p x0 + q eps` with alpha q - sigma p = 1, which gives
  x0 = q x_t - sigma v and eps = alpha v - p x_t (`Schedule.velocity`).

A network with twice the target's channels answers a learned variance in the second half. The loss
can train it (`variance.py`), sampler `ancestral_learned` reads it (`reverse.py`), and all others
leave it aside, as the published perception models do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stepsight.diffusion.checks import check_custom_steps, check_settings, check_single
from stepsight.diffusion.config import DiffusionSettings, sampler_spec, steps_for
from stepsight.diffusion.guidance import guided
from stepsight.diffusion.times import shifted, start_scale, step_options, visited_times
from stepsight.diffusion.trajectory import Denoise, StepNoise
from stepsight.diffusion.variance import BOUND_WEIGHT, variational_bound
from stepsight.errors import UserError
from stepsight.schedule import build_schedule
from stepsight.types import ModelInputs

# (x "b c h w", cond "b k h w", time "b" float32, label "b", features=None) -> "b c h w", or
# "b 2c h w" with a learned variance. Time and label may have one row that holds for all.
Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Step:
    """One step of a trajectory: the level it starts from, and what it costs."""

    index: int
    time: float
    condition: float  # the time that the network is given in its first call
    alpha: float
    sigma: float
    log_snr: float
    calls: int


class Diffusion:
    """A schedule with a parametrisation, a weighting and a sampler.

    Times `t` are "b" tensors in [0, 1]; images are "b c h w". Raises UserError for settings that
    contradict each other.
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        self.settings = settings
        self.schedule = build_schedule(settings)
        check_settings(settings, self.schedule)

    def condition(self, t: Tensor) -> Tensor:
        """What the network is told of the time, float32."""
        told, condition = self.settings.told, self.schedule.condition(t)
        return condition if told is None else torch.full_like(condition, told)

    def draw_times(self, u: Tensor) -> Tensor:
        """Training times "b" from uniform numbers `u` "b" in (0, 1).

        "logit_normal" is Esser et al. 2024, eq. 19; the shift is their eq. 23.
        """
        settings = self.settings
        if settings.density == "logit_normal":
            u = torch.sigmoid(settings.density_mean + settings.density_std * torch.special.ndtri(u))
        return shifted(u, settings.shift)

    def corrupt(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha x0 + sigma eps."""
        alpha, sigma = self.levels(t, x0)
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
        alpha, sigma = self.levels(t, x_t)
        if self.settings.prediction == "x":
            return output.to(x_t.dtype)
        if self.settings.prediction == "eps":
            return (x_t - sigma * output) / alpha
        return self._velocity(t, x_t)[1] * x_t - sigma * output

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

    def loss(
        self, net: Network, coded: ModelInputs, t: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted squared error summed over each row's valid entries "b", and their count "b".

        With variance "trained" the variational bound is added (Nichol & Dhariwal 2021, eq. 16),
        which `weight` leaves alone. The caller divides by the count of the whole batch, over all
        processes. Raises UserError where a variance is to be trained that the network lacks.
        """
        assert coded.x is not None, "a loss needs a target"
        return self.errors(net, coded, self.corrupt(coded.x, noise, t), t, noise)[1:]

    def errors(
        self, net: Network, coded: ModelInputs, x_t: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The answer x0 "b c h w" at any x_t "b c h w", and its `loss` and count.

        noise: what x_t holds besides alpha x0; without it, what that comes to.
        """
        assert coded.x is not None and coded.valid is not None, "a loss needs a target"
        if noise is None:
            alpha, sigma = self.levels(t, x_t)
            noise = (x_t - alpha * coded.x) / sigma
        output, variance = self._ask(net, coded, x_t, t)
        x0 = self.to_x0(output, x_t, t)
        error = (output - self.target(coded.x, noise, t)).square() * coded.valid
        total = error.sum(dim=(1, 2, 3))
        total = total * self.weight(t).to(total)
        if self.settings.variance == "trained":
            x0_error = coded.x - self.to_x0(output.detach(), x_t, t)
            total = total + self._bound(x0_error, variance, t, coded.valid)
        return x0, total, coded.valid.sum(dim=(1, 2, 3))

    def estimate(self, x: Tensor, t: Tensor, temperature: Tensor | None = None) -> Tensor:
        """What x_t "b c h w" says of x0 by itself: its mean if x0 is N(0, 1) and the noise is
        `temperature` "b" times the diffusion's own. Without noise it is x / alpha; 0 at alpha 0."""
        alpha, sigma = self.levels(t, x)
        scale = 1.0 if temperature is None else _rows(temperature, x)
        return alpha * x / (alpha**2 + (scale * sigma) ** 2).clamp_min(1e-12)

    def answer(
        self, net: Network, coded: ModelInputs, x: Tensor, t: Tensor, **given: Any
    ) -> Tensor:
        """The clean image "b c h w" that the network answers to x "b c h w" at times "b". given:
        what else it is told."""
        return self.to_x0(self._ask(net, coded, x, t, **given)[0], x, t)

    def _ask(
        self, net: Network, coded: ModelInputs, x: Tensor, t: Tensor, **more: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The network's prediction "b c h w", and its variance output where it has one."""
        time = _there(self.condition(t), x)
        if coded.look is not None and getattr(net, "looks", False):
            rows = coded.featured
            seen = self.estimate(x, t, coded.temperature)
            some = (seen, coded.cond) if rows is None else (seen[rows], coded.cond[rows])
            more["looked"] = coded.look(*some), rows
        if coded.encoded is None:
            output = net(x, coded.cond, time, coded.label, features=coded.features, **more)
        else:
            output = net(x, coded.encoded, time, coded.label, **more)
        channels = x.shape[1]
        if output.shape[1] == channels:
            return output, None
        assert output.shape[1] == 2 * channels, "a network answers the target's channels, or twice"
        return output[:, :channels], output[:, channels:]

    def _bound(self, error: Tensor, variance: Tensor | None, t: Tensor, valid: Tensor) -> Tensor:
        """The variational bound's share of the loss "b"."""
        bound = variational_bound(self.schedule, error, _learned(variance), t) * valid
        return BOUND_WEIGHT * bound.sum(dim=(1, 2, 3))

    def denoiser(self, net: Network, coded: ModelInputs, walk: Sequence[float] = ()) -> Denoise:
        """`denoise(x, t) -> x0` for samplers: t is a scalar or "b".

        What follows from a scalar on the CPU is computed there, in float64, and reaches the device
        of x as the argument of a kernel, uncopied, one row for all rows of x. walk: times at which
        a network that can `tabulate` what it makes of them does so at once. Where the sampler reads
        the learned variance, it is answered below x0: "b 2c h w". Inputs with a `null` label are
        guided away from its answer.
        """
        answer = self._denoiser(net, coded, walk)
        if coded.null is None:
            return answer
        bare = replace(coded, label=coded.null, encoded=coded.null_encoded)
        bare, used = self._denoiser(net, bare, walk), self.settings
        return guided(answer, bare, used.guidance, used.guided_channels)

    def _denoiser(self, net: Network, coded: ModelInputs, walk: Sequence[float]) -> Denoise:
        tables: dict[float, Any] = {}
        if walk and len(coded.label) == 1 and (tabulated := getattr(net, "tabulated", None)):
            told = self.condition(torch.tensor(walk, dtype=torch.float64)).tolist()
            times = torch.cat([coded.label.new_full((1,), t, dtype=torch.float32) for t in told])
            tables = dict(zip(walk, tabulated(times, coded.label)))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            table = tables.get(t.item()) if tables and not t.ndim else None
            given = {} if table is None else {"table": table}
            output, variance = self._ask(net, coded, x, t, **given)
            x0 = self.to_x0(output, x, t)
            return torch.cat([x0, _learned(variance)], dim=1) if wide else x0

        wide = sampler_spec(self.settings.sampler).variance
        return denoise

    def one_step(self, net: Network, coded: ModelInputs) -> Tensor:
        """The clean image "b c h w" from a single, differentiable model call.

        The network is given zeros, the mean of the noise, at t = 1: end-to-end fine-tuning (Garcia
        et al. 2025), whose loss compares the decoded answer with the truth.
        """
        assert coded.x is not None, "a loss needs a target"
        return _from_zeros(self.denoiser(net, coded), coded.x)

    def sample(
        self,
        denoise: Denoise,
        noise: StepNoise,
        nfe: int,
        *,
        start: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """From noise to data with exactly `nfe` model calls of the settings' sampler.

        `noise(0)` "b c h w" is the start (unit variance, also where alpha(1) > 0, as published
        samplers have it; a convention may scale it), `noise(i + 1)` the noise of step i. From a
        clean guess `start` "b c h w" the trajectory begins at time `strength` in (0, 1], at alpha
        start + sigma noise(0) (Meng et al. 2022, SDEdit), and all calls are spent below that time.
        Objective "end_to_end" has no trajectory: it answers as `one_step` does.

        Raises UserError for an `nfe` that cannot be spent and a start that cannot be made.
        """
        settings = self.settings
        if start is None and strength < 1:
            raise UserError(f"strength {strength}: give a start.")
        if settings.objective == "end_to_end":
            if start is not None:
                raise UserError("objective 'end_to_end' answers at once: it takes no start.")
            check_single(nfe)
            return _from_zeros(denoise, noise(0))
        times = self.times(nfe, strength)
        scale = start_scale(settings, self.schedule, times)
        begin = noise(0) if scale == 1 else scale * noise(0)
        return sampler_spec(settings.sampler)(
            denoise,
            begin if start is None else self.corrupt(start, noise(0), times[:1]),
            times,
            schedule=self.schedule,
            noise=lambda step: noise(step + 1),
            eta=settings.eta,
            **(step_options(settings, times) if strength == 1 else {}),
        )

    def times(self, nfe: int, strength: float = 1.0) -> Tensor:
        """The times "n+1" that `sample` visits, float64, and then the end of its trajectory."""
        if not 0 < strength <= 1:
            raise UserError(f"strength {strength}: give a start, and a time above 0 up to 1.")
        if self.settings.objective == "end_to_end":
            check_single(nfe)
            return torch.tensor([1.0, 0.0], dtype=torch.float64)
        steps = steps_for(self.settings.sampler, nfe)
        check_custom_steps(self.settings, steps)
        return visited_times(self.settings, self.schedule, steps, strength)

    def steps(self, nfe: int, strength: float = 1.0) -> list[Step]:
        """The table of the trajectory that `sample` takes, noisiest step first."""
        visited = self.times(nfe, strength)[:-1]
        functions = (self.schedule.alpha, self.schedule.sigma, self.schedule.log_snr)
        columns = [visited, self.condition(visited), *(f(visited) for f in functions)]
        one_call = self.settings.objective == "end_to_end"
        each, extra = (1, 0) if one_call else sampler_spec(self.settings.sampler).calls
        calls = [each] * (len(visited) - 1) + [each + extra]
        rows = zip(*(column.tolist() for column in columns), calls)
        return [Step(index, *row) for index, row in enumerate(rows)]

    def check_calls(self, nfe: int) -> None:
        """Raise UserError for a number of model calls that `sample` could not spend."""
        self.times(nfe)

    def levels(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, shaped to multiply x."""
        return _rows(self.schedule.alpha(t), x), _rows(self.schedule.sigma(t), x)

    def _velocity(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """p and q of v = p x0 + q eps, shaped to multiply x."""
        p, q = self.schedule.velocity(t)
        return _rows(p, x), _rows(q, x)


def _there(value: Tensor, x: Tensor) -> Tensor:
    """On the device of x: "1" of a scalar of the CPU, which is not copied, "b" of as many."""
    if value.ndim or value.device.type != "cpu":
        return value
    return x.new_full((1,), value.item(), dtype=value.dtype)


def _rows(value: Tensor, x: Tensor) -> Tensor:
    """One number per row "b", or for all, a scalar, to multiply x "b c h w", in its dtype."""
    return _there(value.to(x.dtype), x).to(x.device).reshape(-1, *[1] * (x.ndim - 1))


def _learned(variance: Tensor | None) -> Tensor:
    """The learned variance. Raises UserError where the network answers none."""
    if variance is None:
        raise UserError(
            "the network answers no variance, which diffusion.variance 'trained' and sampler"
            " 'ancestral_learned' need. Set model.learned_variance true and train, or choose"
            " variance 'ignored' and sampler 'ancestral'."
        )
    return variance


def _from_zeros(denoise: Denoise, like: Tensor) -> Tensor:
    """The answer to zeros at the noisiest level."""
    return denoise(torch.zeros_like(like), torch.ones((), dtype=torch.float64))
