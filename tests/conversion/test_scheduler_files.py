"""scheduler_config.json: every key of every class is used, idle or refused, and comes back."""

from __future__ import annotations

import inspect
import json
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from stepsight.conversion.scheduler import (
    USED,
    assumptions,
    diffusion_settings,
    read_scheduler,
    read_settings,
    scheduler_config,
)
from stepsight.conversion.scheduler_table import CLASSES, IDLE, ONLY
from stepsight.diffusion.config import CONVENTIONS, DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import DataFormatError, UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what diffusers finds missing
    import diffusers
    from diffusers import DDIMScheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # numpy 2, in peers
ENDS = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {},
}
# What a file of the class has to say where it does not mean its default.
SAID = {
    "DDIMScheduler": {"clip_sample": False},
    "DDPMScheduler": {"clip_sample": False},
    "PNDMScheduler": {"skip_prk_steps": True},
}


def minimal(name: str) -> dict[str, object]:
    return {"_class_name": name, **SAID.get(name, {})}


def idle(key: str, name: str) -> bool:
    return key in IDLE and (not IDLE[key].classes or name in IDLE[key].classes)


@pytest.mark.parametrize("name", CLASSES)
def test_a_key_of_another_class_is_refused(name):
    leftover = {"skip_prk_steps"} if name == "DDIMScheduler" else set()
    for key in {key for keys in CLASSES.values() for key in keys} - CLASSES[name].keys() - leftover:
        with pytest.raises(UserError, match=f"{key} is no key of a {name}"):
            diffusion_settings(minimal(name) | {key: 1})


@pytest.mark.parametrize("name", CLASSES)
def test_the_table_has_the_keys_and_defaults_of_diffusers(name):
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    theirs = {key: one.default for key, one in parameters.items() if key != "self"}
    assert CLASSES[name] == theirs


def test_conventions_and_the_table_are_of_the_same_classes():
    assert CLASSES.keys() == CONVENTIONS.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_an_unknown_key_is_refused_by_name(tmp_path, name):
    file = tmp_path / "scheduler_config.json"
    diffusion_settings(minimal(name))
    file.write_text(json.dumps(minimal(name) | {"twist": 1}))
    with pytest.raises(UserError, match=f"{file}: twist is no key of a {name}"):
        read_settings(file)


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in CLASSES for key in CLASSES[name]]
)
def test_every_key_is_used_idle_or_refused(name, key):
    """Another value of a key changes the settings, or is refused by name, or is listed as idle."""
    others = {
        "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction",
        "timestep_spacing": "trailing", "set_alpha_to_one": not CLASSES[name][key],
        "beta_start": 0.001, "beta_end": 0.01, "shift": 3.0,
    }  # fmt: skip
    planted = others.get(key, _other(ONLY.get(key, CLASSES[name][key])))
    before = diffusion_settings(minimal(name))
    try:
        after = diffusion_settings(minimal(name) | {key: planted})
    except UserError as error:
        assert f"{key} is {planted!r}" in str(error)
        assert not idle(key, name)
    else:
        assert (after == before) == idle(key, name)


def _other(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) and np.isfinite(value) else "another"


@pytest.mark.parametrize("name", ["DDIMSchedulerCustomized", "EDMEulerScheduler", None])
def test_an_unknown_class_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"_class_name is {name!r}.*DDIMScheduler, DDPM"):
        diffusion_settings({"_class_name": name})


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
    diffusion = Diffusion(diffusion_settings(config))
    schedule = diffusion.schedule
    for steps in (1, 3, 10):
        peer.set_timesteps(steps)
        times = diffusion.times(steps)
        np.testing.assert_array_equal(schedule.condition(times[:-1]), peer.timesteps)
    levels = schedule.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000) ** 2
    np.testing.assert_allclose(levels, peer.alphas_cumprod.numpy(), rtol=1e-10, atol=1e-30)
    np.testing.assert_allclose(schedule.alpha(times[-1]) ** 2, peer.final_alpha_cumprod.numpy())


@pytest.mark.parametrize("name", CLASSES)
def test_missing_keys_are_those_of_the_class(name):
    whole = {**CLASSES[name], **minimal(name)}
    assert diffusion_settings(minimal(name)) == diffusion_settings(whole)
    said = " ".join(assumptions(minimal(name)))
    for key in USED:
        told = f"{key} is missing: {whole.get(key)}, {name}'s default" in said
        changes = name != "FlowMatchEulerDiscreteScheduler" or key == "shift"
        assert told == (key in whole and changes and not idle(key, name))
    assert assumptions(whole) == []


def test_a_file_that_does_not_name_its_class_or_clipping_is_told(tmp_path):
    file = tmp_path / "s.json"
    file.write_text("{}")
    settings, assumed = read_scheduler(file)
    assert settings == diffusion_settings(minimal("DDIMScheduler"))
    assert "_class_name is missing: DDIMScheduler" in assumed
    assert any(sentence.startswith("clip_sample is missing: False") for sentence in assumed)


@pytest.mark.parametrize(
    ("schedule", "prediction", "spacing", "final"),
    list(
        product(
            ("linear", "scaled_linear", "cosine"), ("x", "eps", "v"),
            ("leading", "trailing", "linspace"), ("clean", "first_level"),
        )
    ),
)  # fmt: skip
def test_settings_come_back_from_their_file(schedule, prediction, spacing, final):
    settings = DiffusionSettings(
        schedule=schedule, prediction=prediction, spacing=spacing, final=final, steps_offset=3,
        shift=1.0, sampling_shift=1.0, zero_terminal_snr=prediction == "v",
    )  # fmt: skip
    config = json.loads(json.dumps(scheduler_config(settings)))
    followed = replace(settings, convention="DDIMScheduler")
    assert diffusion_settings(config) == followed
    assert scheduler_config(followed) == config
    DDIMScheduler.from_config(config)


VARIED = {
    "DDPMScheduler": {"variance_type": "fixed_large", "timestep_spacing": "linspace"},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True, "beta_end": 0.015},
    "UniPCMultistepScheduler": {"timestep_spacing": "leading", "steps_offset": 1},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_comes_back_from_its_file(name):
    for more in ({}, VARIED.get(name, {})):
        settings = diffusion_settings(minimal(name) | more)
        assert settings.convention == name
        file = scheduler_config(settings)
        assert diffusion_settings(file) == settings
        theirs = getattr(diffusers, name).from_config(
            {key: value for key, value in file.items() if key != "_class_name"}
        )
        assert {key: theirs.config[key] for key in CLASSES[name]} == {
            key: file[key] for key in CLASSES[name]
        }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "sigmoid"),
        ("beta_start", 1.0),
        ("beta_end", 1.0),
        ("prediction_type", "flow"),
        ("timestep_spacing", "karras"),
        ("num_train_timesteps", 500),
        ("trained_betas", [0.1]),
        ("clip_sample", True),
        ("thresholding", True),
        ("beta_end", "0.02"),
        ("steps_offset", 0.5),
        ("rescale_betas_zero_snr", "yes"),
        ("set_alpha_to_one", None),
    ],
)
def test_what_has_no_counterpart_is_refused_by_key(tmp_path, key, value):
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({"beta_schedule": "scaled_linear"} | {key: value}))
    with pytest.raises(UserError, match=f"{file}: {key} is"):
        read_settings(file)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("PNDMScheduler", {"timestep_spacing": "trailing"}),
        ("PNDMScheduler", {"prediction_type": "v_prediction"}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "use_karras_sigmas": True}),
        (
            "HeunDiscreteScheduler",
            {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        ),
        ("DDPMScheduler", {"variance_type": "learned_range"}),
    ],
)
def test_pairs_of_keys_that_are_not_supported_are_refused(name, keys):
    with pytest.raises(UserError, match=next(iter(keys))):
        diffusion_settings(minimal(name) | keys)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "rectified_flow"},
        {"spacing": "log_snr"},
        {"spacing": "karras"},
        {"spacing": "lcm"},
        {"sampling_shift": 3.0},
        {"sampler": "heun"},
    ],
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
