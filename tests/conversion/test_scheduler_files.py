"""scheduler_config.json: our settings visit diffusers' levels, and go back to the same file."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from stepsight.conversion.scheduler import diffusion_settings, read_settings, scheduler_config
from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import DataFormatError, UserError

ENDS = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {},
}


@pytest.mark.parametrize(
    ("betas", "spacing", "zero_snr", "to_one"),
    list(product(ENDS, ("leading", "trailing", "linspace"), (False, True), (False, True))),
)
def test_levels_and_visits_are_those_of_diffusers(betas, spacing, zero_snr, to_one):
    config = {
        "beta_schedule": betas, **ENDS[betas], "prediction_type": "v_prediction",
        "timestep_spacing": spacing, "rescale_betas_zero_snr": zero_snr, "steps_offset": 1,
        "set_alpha_to_one": to_one, "clip_sample": False,
    }  # fmt: skip
    peer = DDIMScheduler.from_config(config)
    peer.set_timesteps(10)
    settings = diffusion_settings(config)
    schedule = Diffusion(settings).schedule
    times = schedule.times(10, settings.spacing, offset=settings.steps_offset, final=settings.final)
    np.testing.assert_array_equal(schedule.condition(times[:-1]), peer.timesteps)
    levels = schedule.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000) ** 2
    np.testing.assert_allclose(levels, peer.alphas_cumprod, rtol=2e-4, atol=1e-8)
    np.testing.assert_allclose(schedule.alpha(times[-1]) ** 2, peer.final_alpha_cumprod, rtol=1e-5)


def test_missing_keys_are_diffusers_defaults():
    settings, peer = diffusion_settings({}), DDIMScheduler(clip_sample=False)
    assert settings == diffusion_settings(dict(peer.config))
    assert (settings.schedule, settings.spacing, settings.final) == ("linear", "leading", "clean")
    assert settings.steps_offset == 0


@pytest.mark.parametrize(
    ("schedule", "prediction", "spacing", "final"),
    [
        (schedule, prediction, spacing, final)
        for schedule in ("linear", "scaled_linear", "cosine")
        for prediction in ("x", "eps", "v")
        for spacing in ("leading", "trailing", "linspace")
        for final in ("clean", "first_level")
    ],
)
def test_settings_come_back_from_their_file(schedule, prediction, spacing, final):
    settings = DiffusionSettings(
        schedule=schedule, prediction=prediction, spacing=spacing, final=final, steps_offset=3,
        shift=1.0, sampling_shift=1.0, zero_terminal_snr=prediction == "v",
    )  # fmt: skip
    config = json.loads(json.dumps(scheduler_config(settings)))
    assert diffusion_settings(config) == settings
    assert diffusion_settings(dict(DDIMScheduler.from_config(config).config)) == settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "sigmoid"),
        ("beta_start", 0.001),
        ("beta_end", 0.01),
        ("prediction_type", "flow"),
        ("timestep_spacing", "karras"),
        ("num_train_timesteps", 500),
        ("trained_betas", [0.1]),
        ("clip_sample", True),
        ("thresholding", True),
    ],
)
def test_what_has_no_counterpart_is_refused_by_key(tmp_path, key, value):
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({"beta_schedule": "scaled_linear"} | {key: value}))
    with pytest.raises(UserError, match=f"{file}: {key} is"):
        read_settings(file)


@pytest.mark.parametrize(
    "change",
    [{"schedule": "rectified_flow"}, {"spacing": "log_snr"}, {"sampling_shift": 3.0}],
)
def test_settings_without_a_counterpart_are_refused(change):
    with pytest.raises(UserError, match="no counterpart"):
        scheduler_config(
            DiffusionSettings(**{"schedule": "linear", "sampling_shift": 1.0} | change)
        )


@pytest.mark.parametrize("text", ["{", "[]"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataFormatError, match="s.json"):
        read_settings(tmp_path / "s.json")
    with pytest.raises(UserError, match="no such file"):
        read_settings(tmp_path / "absent.json")
