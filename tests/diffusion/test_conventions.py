"""Conventions: trajectories under the name of a scheduler of diffusers are that scheduler's."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from stepsight.conversion.scheduler import diffusion_settings
from stepsight.diffusion.config import CONVENTIONS, SAMPLERS, DiffusionSettings, resampled
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.noise_levels import ENDS, LEAST, published_signal, signal
from stepsight.schedule import build_schedule
from stepsight.types import ModelInputs

SHAPE = (2, 4, 6, 5)
SD = {"beta_start": 8.5e-4, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAID = {
    "DDIMScheduler": {"clip_sample": False},
    "DDPMScheduler": {"clip_sample": False},
    "PNDMScheduler": {"skip_prk_steps": True},
}
FIXED = ("PNDMScheduler", "LCMScheduler", "FlowMatchEulerDiscreteScheduler")
CASES = [
    *product(
        [name for name in CONVENTIONS if name not in FIXED], ("leading", "trailing", "linspace")
    ),
    ("PNDMScheduler", "leading"),
    ("LCMScheduler", "leading"),
]
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # numpy 2, in peers


def config(name: str, spacing: str = "leading", **more) -> dict[str, Any]:
    prediction = "epsilon" if name == "PNDMScheduler" else "v_prediction"
    keys = {**SD, "timestep_spacing": spacing, "steps_offset": 1, "prediction_type": prediction}
    return {"_class_name": name, **keys, **SAID.get(name, {}), **more}


def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(i))


def sampled(settings: DiffusionSettings, curved, calls: int, **start) -> Tensor:
    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        return curved(x, time[0].item() / 1000)

    diffusion = Diffusion(settings)
    coded = ModelInputs(None, draw(0), None, None, torch.zeros(SHAPE[0], dtype=torch.int64))
    return diffusion.sample(diffusion.denoiser(net, coded), draw, calls, **start)


def theirs(diffusers, monkeypatch, file: dict, curved, steps: int) -> tuple[Tensor, int]:
    keys = {key: value for key, value in file.items() if key != "_class_name"}
    peer, fresh = getattr(diffusers, file["_class_name"])(**keys), iter(range(1, steps + 1))
    module = sys.modules[type(peer).__module__]
    stand_in = lambda *_, **__: draw(next(fresh))  # noqa: E731
    monkeypatch.setattr(module, "randn_tensor", stand_in, raising=False)
    peer.set_timesteps(steps)
    x = draw(0) * getattr(peer, "init_noise_sigma", 1.0)
    for t in peer.timesteps:
        seen = peer.scale_model_input(x, t) if hasattr(peer, "scale_model_input") else x
        x = peer.step(curved(seen, float(t) / 1000), t, x, return_dict=False)[0]
    return x, len(peer.timesteps)


def agree(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(("name", "spacing"), CASES)
def test_a_trajectory_is_the_scheduler_s(diffusers, monkeypatch, curved, name, spacing):
    file = config(name, spacing)
    for steps in (1, 3, 8):  # of which two do not divide 1000 or n + 1
        expected, calls = theirs(diffusers, monkeypatch, file, curved, steps)
        agree(sampled(diffusion_settings(file), curved, calls), expected)


@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"]
)
def test_karras_levels_are_the_scheduler_s(diffusers, monkeypatch, curved, name):
    file = config(name, "linspace", use_karras_sigmas=True)
    for steps in (1, 3, 8):
        expected, calls = theirs(diffusers, monkeypatch, file, curved, steps)
        agree(sampled(diffusion_settings(file), curved, calls), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_s_shift_is_the_scheduler_s(diffusers, monkeypatch, curved, shift: float):
    file = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}
    for steps in (1, 3, 8):
        expected, calls = theirs(diffusers, monkeypatch, file, curved, steps)
        agree(sampled(diffusion_settings(file), curved, calls), expected)


@pytest.mark.parametrize(
    ("steps", "visits"), [(1, [999]), (2, [999, 499]), (4, [999, 759, 499, 259])]
)
def test_latent_consistency_visits_the_levels_of_its_distillation(steps: int, visits: list[int]):
    diffusion = Diffusion(diffusion_settings(config("LCMScheduler")))
    assert diffusion.schedule.condition(diffusion.times(steps)[:-1]).tolist() == visits
    with pytest.raises(UserError, match="'lcm' has 50 levels, too few for 51 steps"):
        diffusion.times(51)


@pytest.mark.parametrize(("name", "zero"), list(product(ENDS, (False, True))))
def test_the_published_table_is_diffusers_to_the_last_bit(diffusers, name: str, zero: bool):
    schedule = {"cosine": "squaredcos_cap_v2"}.get(name, name)
    ends = dict(zip(("beta_start", "beta_end"), ENDS[name]))
    for peer, least in (("DDIMScheduler", 0.0), ("UniPCMultistepScheduler", LEAST)):
        keys: dict[str, Any] = {"beta_schedule": schedule, "rescale_betas_zero_snr": zero, **ends}
        expected = getattr(diffusers, peer)(**keys).alphas_cumprod
        actual = torch.from_numpy(published_signal(name, (), zero, least))
        assert torch.equal(actual, expected.double().sqrt())
    exact = torch.from_numpy(signal(name, (), zero))
    torch.testing.assert_close(actual[:-1], exact[:-1], rtol=0, atol=1e-6)
    assert not torch.equal(actual, exact)


def test_other_betas_are_those_of_the_scheduler(diffusers):
    file = config("DDIMScheduler", beta_end=0.014)
    settings = diffusion_settings(file)
    assert settings.betas == (8.5e-4, 0.014)
    keys = {key: value for key, value in file.items() if key != "_class_name"}
    expected = diffusers.DDIMScheduler(**keys).alphas_cumprod.double()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(build_schedule(settings).alpha(t) ** 2, expected)
    own = build_schedule(replace(settings, convention="stepsight"))
    torch.testing.assert_close(own.alpha(t) ** 2, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_start_is_refined_under_every_convention(curved, name):
    file = {"_class_name": name} if name.startswith("Flow") else config(name)
    settings = diffusion_settings(file)
    refined = sampled(settings, curved, 3, start=draw(7), strength=0.5)
    assert refined.isfinite().all()


@pytest.mark.parametrize("spacing", ["linspace", "karras"])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_levels_between_those_of_the_table_have_slopes(name: str, spacing: str):
    settings = diffusion_settings(config(name, "linspace", use_karras_sigmas=spacing == "karras"))
    schedule = build_schedule(settings)
    t = torch.linspace(0.0011, 0.9997, 997, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(schedule.sigma(t).sum(), t)
    torch.testing.assert_close(schedule.d_sigma(t), slope)


def test_another_walk_is_ours():
    settings = diffusion_settings(config("DDIMScheduler", "linspace"))
    assert resampled(settings, sampler="ddim", spacing="linspace", eta=0.5).convention == (
        "DDIMScheduler"
    )
    for other in ({"sampler": "euler"}, {"spacing": "leading"}, {"schedule": "cosine"}):
        assert resampled(settings, **other).convention == "stepsight"
    lcm = resampled(diffusion_settings(config("LCMScheduler")), sampler="ddim")
    assert Diffusion(lcm).times(2).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("DDIMScheduler", {"sampler": "euler"}, "DDIMScheduler has no sampler 'euler'"),
        ("DDIMScheduler", {"spacing": "karras"}, "no spacing 'karras'. Choose from trailing"),
        ("LCMScheduler", {"spacing": "leading"}, "no spacing 'leading'. Choose from lcm"),
        ("DDIMScheduler", {"sampling_schedule": "cosine"}, "no sampling_schedule 'cosine'"),
        ("DDIMScheduler", {"schedule": "rectified_flow"}, "does not walk schedule 'rectified"),
        ("DDIMScheduler", {"betas": (0.1,)}, r"diffusion.betas: \[0.1\]. Give the first"),
        ("DDIMScheduler", {"betas": (0.1, 1.0)}, "both between 0 and 1"),
        ("DDIMScheduler", {"schedule": "cosine", "betas": (0.1, 0.2)}, "has none to choose"),
    ],
)
def test_what_a_scheduler_does_not_do_is_refused(name: str, change, match: str):
    with pytest.raises(UserError, match=match):
        Diffusion(replace(diffusion_settings(config(name)), **change))


def test_two_calls_of_plms_are_refused_as_published():
    diffusion = Diffusion(diffusion_settings(config("PNDMScheduler")))
    with pytest.raises(UserError, match="one model call, or three and more, not 2"):
        diffusion.times(2)


def test_plms_converges_though_its_first_step_is_ddim_s(gaussian):
    """One step of first order leaves an error that falls with the square of the step."""
    settings = DiffusionSettings(
        schedule="cosine", sampler="plms", spacing="log_snr", sampling_shift=1.0
    )
    schedule = build_schedule(settings)
    law, q = gaussian(schedule), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = []
    for steps in (32, 64):
        times = torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64)
        x = SAMPLERS["plms"](law.denoise, law.at(q, times[0]), times, schedule=schedule)
        errors.append((x - law.at(q, times[-1])).abs().item())
    assert errors[1] < 1e-3
    assert errors[0] > 3.5 * errors[1]


def test_a_convention_that_nobody_has_is_refused():
    with pytest.raises(UserError, match="no convention 'DDIMSchedular'. Did you mean 'DDIM"):
        Diffusion(DiffusionSettings(convention="DDIMSchedular"))
