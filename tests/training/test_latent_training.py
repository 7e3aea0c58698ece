"""Training from the latent cache is training; and what cannot be done from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepsight import checkpoint
from stepsight.data.collate import collate
from stepsight.errors import UserError
from stepsight.models.config import CodecSettings
from stepsight.pipeline.dense import DensePipeline
from stepsight.training.latents import Latents


def training(lab, folder: Path, codec: str = "", tasks=("depth", "flow", "amodal"), **changes):
    config = lab.config(tasks, **{"loss": "squared"} | changes)  # as without the truth itself
    return lab.fit(replace(config, codec=CodecSettings(codec)), folder)


@pytest.mark.parametrize(("dtype", "slack"), [("float32", 1e-6), ("float16", 1e-3)])
def test_training_from_the_cache_is_training(lab, tmp_path, dtype, slack):
    plain = training(lab, tmp_path / "plain")
    cache = str(tmp_path / "cache")
    cached = training(lab, tmp_path / "cached", latents=cache, latents_dtype=dtype)
    assert lab.losses(cached) == pytest.approx(lab.losses(plain), rel=slack)
    validated = [[row["loss"] for row in lab.rows(run, "val")] for run in (cached, plain)]
    assert validated[0] == pytest.approx(validated[1], rel=max(slack, 1e-5) * 5)
    learned = [checkpoint.read(run).tensors(checkpoint.STATISTICS) for run in (cached, plain)]
    assert all(torch.equal(learned[0][task], learned[1][task]) for task in ("depth", "flow"))


@pytest.mark.slow
def test_a_second_run_makes_nothing_anew(lab, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    first = training(lab, tmp_path / "first", latents=cache)
    monkeypatch.setattr(Latents, "_make", None)
    assert lab.losses(training(lab, tmp_path / "second", latents=cache)) == lab.losses(first)


def test_training_in_the_latents_of_a_vae(lab, tmp_path, vae_of):
    """The run keeps a copy of its VAE, and predicts when the one it was given is gone."""
    vae = vae_of(0)
    vae.save(tmp_path / "vae")
    path, cache = str(tmp_path / "vae"), str(tmp_path / "cache")
    plain = training(lab, tmp_path / "plain", path)
    cached = training(lab, tmp_path / "cached", path, latents=cache)
    assert lab.losses(cached) == pytest.approx(lab.losses(plain), rel=1e-3)
    (tmp_path / "vae").rename(tmp_path / "gone")
    pipeline = DensePipeline.from_pretrained(cached)
    assert pipeline.codec.name == vae.name == checkpoint.read(cached).meta["codec"]
    batch = collate(lab.source.samples(range(2)))
    assert pipeline.predict(batch, "flow", nfe=1, members=2).values.shape == (2, 2, 16, 16)


def test_another_vae_than_the_cache_was_made_with_is_refused(lab, tmp_path, vae_of):
    vae_of(0).save(tmp_path / "vae")
    cache = str(tmp_path / "cache")
    training(lab, tmp_path / "pixels", tasks=("depth",), images=8, latents=cache)
    with pytest.raises(UserError, match="latent cache is of codec 'pixels', not 'AutoencoderKL-"):
        training(
            lab, tmp_path / "vae run", str(tmp_path / "vae"), ("depth",), images=8, latents=cache
        )


def test_the_tasks_own_errors_need_the_samples(lab, tmp_path):
    with pytest.raises(UserError, match="training.loss task: .*training.latents does not keep"):
        training(lab, tmp_path / "run", latents=str(tmp_path / "cache"), loss="task")
    assert list(tmp_path.iterdir()) == []


def test_the_physical_objective_needs_the_samples(lab, tmp_path):
    config = lab.config(("depth",), latents=str(tmp_path / "cache"))
    diffusion = replace(config.diffusion, objective="end_to_end")
    with pytest.raises(UserError, match="training.latents: .*end_to_end"):
        lab.fit(replace(config, diffusion=diffusion), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
