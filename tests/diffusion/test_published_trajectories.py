"""Published schedulers: sampling under their settings equals diffusers', from noise to result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.types import ModelInputs

SHAPE = (2, 4, 6, 5)
# scheduler_config.json of Stable Diffusion 2 and Marigold
BASE = {
    "beta_start": 8.5e-4,
    "beta_end": 1.2e-2,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
OURS = DiffusionSettings(
    schedule="scaled_linear", prediction="v", final="first_level", sampling_shift=1.0
)
# Marigold v1.0, v1.1, and what v1.1 would be without its rescaling: (spacing, zero terminal SNR)
RECIPES = [("leading", False), ("trailing", True), ("trailing", False)]


def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(i))


def sampled(settings: DiffusionSettings, curved, steps: int) -> Tensor:
    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        assert (time == time[0].round()).all()
        return curved(x, time[0].item() / 1000)

    diffusion = Diffusion(settings)
    coded = ModelInputs(None, draw(0), None, None, torch.zeros(SHAPE[0], dtype=torch.int64))
    return diffusion.sample(diffusion.denoiser(net, coded), draw, steps)


def peers(peer, curved, steps: int, **arguments) -> Tensor:
    peer.set_timesteps(steps)
    x = draw(0) * peer.init_noise_sigma
    for i, timestep in enumerate(peer.timesteps):
        fresh = {"variance_noise": draw(i + 1), **arguments} if arguments else {}
        v = curved(x, timestep.item() / 1000)
        x = peer.step(v, timestep, x, return_dict=False, **fresh)[0]
    return x


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
@pytest.mark.parametrize("spacing, zero", RECIPES)
def test_marigold_s_sampler_equals_diffusers(diffusers, curved, spacing, zero: bool, steps: int):
    peer = diffusers.DDIMScheduler(**BASE, timestep_spacing=spacing, rescale_betas_zero_snr=zero)
    settings = {**vars(OURS), "spacing": spacing, "zero_terminal_snr": zero}
    actual = sampled(DiffusionSettings(**settings), curved, steps)
    # the peer's table is a product of float32 numbers
    torch.testing.assert_close(actual, peers(peer, curved, steps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_stochastic_trajectories_to_the_first_level_equal_diffusers(diffusers, curved, spacing):
    peer = diffusers.DDIMScheduler(**BASE, timestep_spacing=spacing)
    settings = DiffusionSettings(**{**vars(OURS), "spacing": spacing, "eta": 0.7})
    expected = peers(peer, curved, 10, eta=0.7)
    torch.testing.assert_close(sampled(settings, curved, 10), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [3, 7, 300])
def test_leading_is_exact_where_the_steps_do_not_divide(diffusers, curved, steps: int):
    peer = diffusers.DDIMScheduler(**BASE, timestep_spacing="leading")
    settings = DiffusionSettings(**{**vars(OURS), "spacing": "leading"})
    expected = peers(peer, curved, steps)
    torch.testing.assert_close(sampled(settings, curved, steps), expected, rtol=1e-5, atol=1e-5)


def test_leading_without_an_offset_ends_where_it_last_visits(diffusers, curved):
    peer = diffusers.DDIMScheduler(**{**BASE, "steps_offset": 0}, timestep_spacing="leading")
    settings = DiffusionSettings(**{**vars(OURS), "spacing": "leading", "steps_offset": 0})
    expected = peers(peer, curved, 4)
    torch.testing.assert_close(sampled(settings, curved, 4), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("choice", [{"spacing": "leading"}, {"final": "first_level"}])
def test_a_shift_off_the_named_levels_is_refused(choice):
    with pytest.raises(UserError, match="diffusion.sampling_shift: 4.0.*Set it to 1"):
        Diffusion(DiffusionSettings(schedule="linear", **choice))


@pytest.mark.parametrize("choice", [{"spacing": "leading"}, {"final": "first_level"}])
def test_levels_of_rectified_flow_are_refused_at_once(choice):
    with pytest.raises(UserError, match="rectified_flow does not have"):
        Diffusion(DiffusionSettings(sampling_shift=1.0, **choice))
