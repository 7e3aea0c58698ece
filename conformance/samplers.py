"""Imported schedulers beside diffusers' own: same file, same noise, same network function, float32.

The network is a smooth function of x and of the number it is told, with no symmetry to hide behind.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from conformance.dit import network
from conformance.dit import stored as opened
from conformance.rows import Differences, relative, row
from stepsight.conversion.dit import Wishes
from stepsight.conversion.foreign import read_tensors
from stepsight.conversion.generalist import import_generalist
from stepsight.conversion.scheduler import diffusion_settings
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.trajectory import Denoise
from stepsight.types import ModelInputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

SHAPE = (2, 4, 8, 6)
COUNTS = (1, 2, 3, 4, 7, 10, 50)
# The noise levels of Stable Diffusion.
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LATENT = {"clip_sample": False}
ZERO = {"rescale_betas_zero_snr": True}
KARRAS = {"use_karras_sigmas": True}
SPACINGS = ("leading", "trailing", "linspace")
ALL = ("epsilon", "v_prediction", "sample")
NOISY, V = ALL[:2], ALL[1:2]
ORACLE = "diffusers 0.42"
RELEASED = "dit_moe_generalist.pt"
Function = Callable[[Tensor, float], Tensor]


def smooth(x: Tensor, told: float) -> Tensor:
    return torch.tanh(1.3 * x + told / 1000) + 0.1 * x.roll(1, dims=-1)


def steep(gain: float) -> Function:
    """A network that amplifies x."""
    return lambda x, told: torch.sin(gain * x) + 0.3 * torch.sin(gain * x.roll(1, dims=-1))


def with_variance(x: Tensor, told: float) -> Tensor:
    return torch.cat([smooth(x, told), torch.tanh(smooth(x.flip(-1), told))], dim=1)


def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(i))


class Double:
    """torch for a peer that casts to float32: its float32 has 64 bits."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def ours(
    config: Mapping[str, Any],
    calls: int,
    function: Function,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Tensor:
    """By what the importer makes of the file, with so many model calls."""
    diffusion = Diffusion(replace(diffusion_settings(config), **changes))

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features: Any = None) -> Tensor:
        return function(x, time[0].item())

    coded = ModelInputs(None, draw(0), None, None, torch.zeros(SHAPE[0], dtype=torch.int64))
    denoise = diffusion.denoiser(net, coded)
    return diffusion.sample(denoise, lambda i: draw(i).to(dtype), calls)


def theirs(
    config: Mapping[str, Any],
    steps: int,
    function: Function,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> tuple[Tensor, int]:
    """By the scheduler that the file names, and its model calls; arguments: of its steps."""
    name = config["_class_name"]
    peer = getattr(diffusers, name)(**{k: v for k, v in config.items() if k != "_class_name"})
    module, fresh = sys.modules[type(peer).__module__], iter(range(1, steps + 1))
    stand_ins: dict[str, Any] = {"randn_tensor": lambda *_, **__: draw(next(fresh)).to(dtype)}
    if dtype == torch.float64:
        stand_ins["torch"] = Double()
    with patch.multiple(module, **stand_ins, create=True):
        peer.set_timesteps(steps)
        if hasattr(peer, "sigmas"):
            peer.sigmas = peer.sigmas.to(dtype)
        x = draw(0).to(dtype) * getattr(peer, "init_noise_sigma", 1.0)
        for t in peer.timesteps:
            seen = peer.scale_model_input(x, t) if hasattr(peer, "scale_model_input") else x
            x = peer.step(function(seen, float(t)), t, x, return_dict=False, **arguments)[0]
    return x, len(peer.timesteps)


def beside(
    config: Mapping[str, Any],
    steps: int,
    function: Function = smooth,
    dtype: torch.dtype = torch.float32,
) -> float:
    expected, calls = theirs(config, steps, function, dtype)
    assert expected.dtype == dtype
    return relative(ours(config, calls, function, dtype), expected)


def over(
    name: str,
    predictions: Iterable[str] = ALL,
    spacings: Iterable[str] = SPACINGS,
    dtype: torch.dtype = torch.float32,
    keys: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """For every prediction and spacing the worst of all numbers of steps."""
    base = {"_class_name": name, "steps_offset": 1, **SD, **(keys or {})}
    more = "".join(f" {key}" for key, value in (keys or {}).items() if value is True)
    return {
        f"{prediction} {spacing}{more}": max(
            beside(
                {**base, "prediction_type": prediction, "timestep_spacing": spacing},
                steps,
                dtype=dtype,
            )
            for steps in COUNTS
        )
        for prediction in predictions
        for spacing in spacings
    }


@row("sampler", "DDIMScheduler", oracle=ORACLE, bar=1e-5)
def ddim() -> Differences:
    """Three predictions and spacings, with and without zero terminal SNR, 1 to 50 steps: steps go
    where the class steps, not always to the next visit."""
    name = "DDIMScheduler"
    plain = over(name, keys={"set_alpha_to_one": False, **LATENT})
    return plain | over(name, V, keys={**ZERO, **LATENT})


@row("sampler", "DDIMScheduler, eta", oracle=ORACLE, bar=1e-5)
def ddim_eta() -> Differences:
    """The same with eta 0.7 and the same noise in every step."""
    found = {}
    for spacing in SPACINGS:
        config = {"_class_name": "DDIMScheduler", "timestep_spacing": spacing, **SD, **LATENT}
        expected, calls = theirs(config, 10, smooth, eta=0.7)
        found[spacing] = relative(ours(config, calls, smooth, eta=0.7), expected)
    return found


@row("sampler", "DDIMScheduler, amplified", oracle=ORACLE, bar=1e-5)
def ddim_amplified() -> Differences:
    """50 leading steps of Stable Diffusion 2 of a network that amplifies x two to six times: on a
    table in float64 x0 is 1.2e-5 (4 times) and 1.6e-5 (6 times) away. At 12 times ours is 3.6e-4
    away, where the class is 2e-4 from itself in float64: rounding, which no table helps."""
    config = {
        "_class_name": "DDIMScheduler",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        **SD,
        **LATENT,
    }
    gains = {"v_prediction": (2,), "sample": (2, 4, 6)}
    return {
        f"{kind}, {gain} times": beside({**config, "prediction_type": kind}, 50, steep(gain))
        for kind in gains
        for gain in gains[kind]
    }


@row("sampler", "DDPMScheduler", oracle=ORACLE, bar=1e-5)
def ddpm() -> Differences:
    """Ancestral steps with the same noise; the variances fixed_large and learned_range with
    linspace alone, as in other spacings they draw in the last step too, which is refused."""
    name, linspace = "DDPMScheduler", ["linspace"]
    large = over(name, V, linspace, keys={"variance_type": "fixed_large", **LATENT})
    learned = {"variance_type": "learned_range", "timestep_spacing": "linspace", **SD, **LATENT}
    varied = max(beside({"_class_name": name, **learned}, n, with_variance) for n in COUNTS)
    found = {"fixed_large": max(large.values()), "learned_range": varied}
    return over(name, keys=LATENT) | found


@row("sampler", "LCMScheduler", oracle=ORACLE, bar=1e-6)
def lcm() -> Differences:
    """Multistep consistency sampling at 999, 759, 499, 259, with boundary weights and the same
    noise."""
    return over("LCMScheduler", spacings=["leading"])


@row("sampler", "PNDMScheduler", oracle=ORACLE, bar=1e-5)
def pndm() -> Differences:
    """PLMS without Runge-Kutta steps, leading, as Stable Diffusion 1 is published: n steps are n +
    1 calls. Other spacings and predictions are refused."""
    return over("PNDMScheduler", ["epsilon"], ["leading"], keys={"skip_prk_steps": True})


@row("sampler", "EulerDiscreteScheduler", oracle=ORACLE, bar=1e-5)
def euler() -> Differences:
    """Noise of the first sigma, levels between those of the table, Karras' levels. Zero terminal
    SNR in float64: in float32 the class itself loses 4 digits, as it scales x by 4096."""
    name = "EulerDiscreteScheduler"
    karras = over(name, NOISY, ["linspace"], keys=KARRAS)
    zero = over(name, V, keys=ZERO, dtype=torch.float64)
    return over(name, NOISY) | karras | zero


@row("sampler", "EulerAncestralDiscreteScheduler", oracle=ORACLE, bar=1e-5)
def euler_ancestral() -> Differences:
    """The same with fresh noise in every step."""
    name = "EulerAncestralDiscreteScheduler"
    zero = over(name, V, keys=ZERO, dtype=torch.float64)
    return over(name, NOISY) | zero


@row("sampler", "HeunDiscreteScheduler", oracle=ORACLE, bar=1e-5)
def heun() -> Differences:
    """Two calls a step but the last. In float64: a step from sigma 14.6 to 0.03 multiplies what
    float32 rounds by 500."""
    name = "HeunDiscreteScheduler"
    karras = over(name, ALL, ["linspace"], dtype=torch.float64, keys=KARRAS)
    return over(name, dtype=torch.float64) | karras


@row("sampler", "DPMSolverMultistepScheduler", oracle=ORACLE, bar=1e-5)
def dpmpp_2m() -> Differences:
    """DPM-Solver++ 2M on the class's own visits, with zero terminal SNR and with Karras' levels."""
    return _multistep("DPMSolverMultistepScheduler")


@row("sampler", "UniPCMultistepScheduler", oracle=ORACLE, bar=1e-5)
def unipc() -> Differences:
    """UniPC of order 2 (bh2) in the same way."""
    return _multistep("UniPCMultistepScheduler")


def _multistep(name: str) -> Differences:
    karras = over(name, ALL, ["leading"], keys=KARRAS)
    return over(name) | over(name, V, keys=ZERO) | karras


@row("sampler", "FlowMatchEulerDiscreteScheduler", oracle=ORACLE, bar=1e-5)
def flow() -> Differences:
    """Euler's steps along a velocity, with the class's shift, which it applies twice to the last
    level."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    return {
        f"shift {shift}": max(beside({**config, "shift": shift}, steps) for steps in COUNTS)
        for shift in (1.0, 0.7, 3.0)
    }


@row(
    "sampler",
    "the paper's release",
    oracle="scaling-diffusion-perception cb9f2c7, stored answers",
    bar=1e-5,
    golden="scaling-perception-generalist",
)
def release(folder: Path) -> Differences:
    """The latents after every step of its generalist's four rows, from its own condition and
    noise: network, table, visits and steps together, before decoding."""
    imported = import_generalist(read_tensors(folder / "checkpoint" / RELEASED), Wishes())
    net, (given, stored) = network(imported), opened(folder)
    noise = torch.stack([given[f"noise_{seed}"] for seed in (7, 8, 9)])
    diffusion, found = Diffusion(imported.config.diffusion), {}
    for label, task in enumerate(("depth", "amodal", "flow_u", "flow_v")):
        cond = stored[f"a_4_{task}_condition_latent"].expand(3, -1, -1, -1)
        coded = ModelInputs(None, cond, None, None, torch.full((3,), label))
        for steps in (1, 2, 4):
            states: list[Tensor] = []
            denoise = recorded(diffusion.denoiser(net, coded), states)
            last = diffusion.sample(denoise, lambda i: noise, steps)
            ours = torch.stack([*states[1:], last])
            found[f"{task}, {steps} steps"] = relative(ours, stored[f"a_{steps}_{task}_latents"])
    return found


def recorded(denoise: Denoise, states: list[Tensor]) -> Denoise:
    """`denoise`, which keeps what it is asked."""

    def kept(x: Tensor, t: Tensor) -> Tensor:
        states.append(x)
        return denoise(x, t)

    return kept
