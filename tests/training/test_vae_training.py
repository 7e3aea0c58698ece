"""The stage that trains a VAE: what it writes, that it learns, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from stepsight.config import RunConfig, from_dict
from stepsight.data.collate import collate
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, build_vae, to_pictures
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks
from stepsight.training import vae as stage
from stepsight.training.dry_run import describe, lines
from stepsight.training.folder import RunWriter
from stepsight.training.reconstruction import image_psnr, restored_target, survival, survival_grid

CPU = torch.device("cpu")
WEIGHTS = Path("vae") / "diffusion_pytorch_model.safetensors"


def config(
    tasks: tuple[str, ...] = ("depth", "flow", "amodal"), size: int = 16, **training: Any
) -> RunConfig:
    settings = {"images": 24, "batch": 4, "lr": 2e-3, "warmup": 8, "log_every": 4}
    settings |= {"validate_every": 12, "first_validation": 4, "validation_images": 3}
    return from_dict(
        {
            "model": {"name": "vae-tiny"},
            "tasks": {task: {} for task in tasks},
            "data": {"scenes": {"size": [size, size]}},
            "training": settings | {"checkpoint_every": 0} | training,
        }
    )


@pytest.fixture
def fit(lab, tmp_path):
    """Train on synthetic samples; the run folder."""

    def serve(config: RunConfig, quantities: frozenset[str], split: str) -> dict[str, Any]:
        return {"scenes": lab.source if split == "train" else lab.held}

    def run(config: RunConfig, name: str = "run", overwrite: bool = False) -> Path:
        with mock.patch.object(stage, "open_sources", serve):
            return stage.fit_vae(
                config, name="vae", run_dir=str(tmp_path / name), overwrite=overwrite
            )

    return run


# ------------------------------------------------------------------------ what a run leaves behind


def test_a_run_writes_a_vae_that_opens_and_everything_about_it(fit, lab):
    folder = fit(config())
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    described = {"config.yaml", "command.txt", "env.json"}
    logged = {"metrics.jsonl", "train.log", "samples/final.png"}
    assert written == described | logged | {"vae/config.json", WEIGHTS.as_posix()}
    assert VAE.open(folder / "vae", CodecSettings()).downsample == 4
    module = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
    assert module.config["latent_channels"] == 4

    steps = [row["images_seen"] for row in lab.rows(folder)]
    assert steps == [4, 8, 12, 16, 20, 24]
    rows = lab.rows(folder, "val")
    assert [row["images_seen"] for row in rows] == [4] * 3 + [12] * 3 + [24] * 3
    assert [row["task"] for row in rows[:3]] == ["depth", "flow", "amodal"]
    for row in rows:
        assert row["n"] == 3 and row["metrics"].keys() == {"psnr", "mae"}
        assert math.isfinite(row["metrics"]["psnr"]) and row["metrics"]["mae"] > 0
    log = (folder / "train.log").read_text()
    assert "target MAE" in log and f"--codec.path {folder / 'vae'}" in log


def test_the_same_seed_gives_the_same_weights_and_another_one_others(fit):
    names = {"a": 0, "b": 0, "c": 1}
    runs = {name: fit(config(images=12, seed=seed), name) for name, seed in names.items()}
    states = {name: load_file(folder / WEIGHTS) for name, folder in runs.items()}
    assert all(torch.equal(states["b"][key], value) for key, value in states["a"].items())
    assert not all(torch.equal(states["c"][key], value) for key, value in states["a"].items())


@pytest.mark.slow
def test_the_loss_falls_and_images_survive_better(fit, lab):
    folder = fit(config(images=320, batch=8, log_every=8, first_validation=8, validate_every=0))
    losses = lab.losses(folder)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    first, last = (lab.rows(folder, "val")[i]["metrics"] for i in (0, -3))
    assert last["psnr"] > first["psnr"] + 1


def test_saved_latents_of_training_pictures_have_mean_0_and_deviation_1(fit, lab):
    folder = fit(config(("depth",), flip=False))
    codec = VAE.open(folder / "vae", CodecSettings())
    batch = collate(lab.source.samples(range(32)))  # the whole source, which the scale is taken on
    target = build_tasks(config(("depth",)).tasks)["depth"].encode(batch).x
    z = torch.cat([codec.encode(batch.image), codec.encode(target)])
    assert float(z.mean()) == pytest.approx(0, abs=0.02)
    assert float(z.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_an_existing_run_is_replaced_only_if_asked(fit):
    small = config(("depth",), images=4)
    folder = fit(small)
    with pytest.raises(UserError, match="--overwrite"):
        fit(small)
    (folder / "old").touch()
    assert not (fit(small, overwrite=True) / "old").exists()


@pytest.mark.slow
def test_both_optimizers_bfloat16_and_separate_passes_run(fit, lab):
    fit(config(images=4, optimizer="adamw", precision="bf16", clip=0.0), "adamw")
    separate = config(("flow",), images=4)
    separate.tasks["flow"] = type(separate.tasks["flow"])(components="separate")
    folder = fit(separate, "separate")
    assert lab.rows(folder, "val")[-1]["task"] == "flow"


# ------------------------------------------------------------------------ what it is trained on


def test_a_batch_shows_its_images_and_its_targets(lab, tmp_path):
    run = RunWriter(tmp_path)
    run.create(config())

    def serve(*_: object) -> dict[str, Any]:
        return {"scenes": lab.source}

    with mock.patch.object(stage, "open_sources", serve):
        s = stage.prepare(config(("semantic",), flip=False), run)
    draw = s.mixture.draw(0)
    batch = collate(lab.source.samples(draw.indices))
    pictures = s.pictures(draw, "semantic")
    assert pictures.shape == (4 + 4 * 3, 3, 16, 16)  # 7 classes are three pictures
    assert torch.equal(pictures[:4], batch.image)
    assert torch.equal(pictures[4:], to_pictures(s.tasks["semantic"].encode(batch).x))


def test_tasks_of_one_source_take_turns(fit, lab):
    """Every batch shows the targets of one of them."""
    folder = fit(config(("depth", "flow", "amodal"), images=24))
    seen = [[key for key in row if key.startswith("loss/")] for row in lab.rows(folder)]
    assert seen == [["loss/depth"], ["loss/flow"], ["loss/amodal"]] * 2


def test_the_loss_is_what_its_formula_says():
    torch.manual_seed(0)
    net = build_vae("vae-tiny").eval()
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    found = stage.objective(net, x, generator("noise"))

    posterior = net.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator("noise"))
    error = net.decode(posterior.mean + posterior.std * noise).sample - x
    rows, columns = (error[:, :, 1:] - error[:, :, :-1]), (error[..., 1:] - error[..., :-1])
    mean, variance = posterior.mean, posterior.var
    kl = (mean**2 + variance - 1 - variance.log()).mean() / 2
    expected = error.abs().mean() + (error**2).mean()
    expected += stage.EDGES * (rows.abs().mean() + columns.abs().mean()) + stage.KL * kl
    assert torch.allclose(found, expected, atol=1e-6) and found.requires_grad


# ------------------------------------------------------------------------ survival


def test_psnr_is_its_definition():
    truth = torch.zeros(2, 3, 4, 4)
    x = torch.full_like(truth, 0.2)
    x[1] = 5.0  # clipped to 1
    expected = [10 * math.log10(4 / 0.04), 10 * math.log10(4)]
    assert image_psnr(x, truth).tolist() == pytest.approx(expected, rel=1e-5)


class Dimmed(Pixels):
    """A codec that loses a fifth of everything."""

    def decode(self, z: torch.Tensor, channels: int) -> torch.Tensor:
        return 0.8 * z[:, :channels]


def test_survival_counts_valid_entries_of_the_target_only(lab):
    task = build_tasks(config(("flow",)).tasks)["flow"]
    target = task.encode(collate(lab.held.samples(range(6))))
    expected = 0.2 * (target.x.abs() * target.valid).sum() / (2 * target.valid.sum())
    found = survival(Dimmed(), task, lab.held, 6, CPU)
    assert found["mae"] == pytest.approx(float(expected), rel=1e-4)
    lossless = survival(Pixels(), task, lab.held, 6, CPU)
    assert lossless["mae"] == 0 and lossless["psnr"] == pytest.approx(10 * math.log10(4e12))


def test_passes_of_a_target_go_through_the_codec_one_by_one(lab):
    settings = config(("flow",)).tasks["flow"]
    task = build_tasks({"flow": type(settings)(components="separate")})["flow"]
    batch = collate(lab.held.samples(range(3)))
    assert torch.equal(restored_target(Pixels(), task, batch), task.encode(batch).x)


def test_the_grid_shows_every_task(lab, tmp_path):
    tasks = build_tasks(config(("depth", "semantic")).tasks).values()
    path = survival_grid(Pixels(), [(task, lab.held) for task in tasks], tmp_path / "a.png", CPU)
    with Image.open(path) as picture:
        width, height = picture.size
    assert height > 8 * 128 and width > 4 * 128  # four images of each task, enlarged


# ------------------------------------------------------------------------ described and refused


def test_the_description_is_that_of_a_backbone():
    found = describe(config(("depth", "semantic"), images=24))
    net = build_vae("vae-tiny")
    assert found["params_total"] == sum(p.numel() for p in net.parameters())
    assert sum(found["params_by_group"].values()) == found["params_total"]
    assert sum(found["flops_by_group"].values()) == found["flops_forward"] > 0
    assert (
        found["flops_train"] == 24 * found["flops_train_per_image"] == 72 * found["flops_forward"]
    )
    assert found["input"] == found["output"] == [4 * (1 + 3), 3, 16, 16]  # an image, three targets
    assert found["memory_bytes"] > 20 * found["params_total"]
    single = describe(config(("depth",)))
    assert found["flops_forward"] == 2 * single["flops_forward"]
    assert found.keys() == describe(from_dict({"model": {"name": "split-8"}})).keys()
    assert "vae-tiny" in "\n".join(lines(json.loads(json.dumps(found))))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"training": {"processes": 2}}, r"training\.processes"),
        ({"training": {"accumulate": 2}}, r"training\.accumulate"),
        ({"codec": {"path": "vae"}}, r"codec\.path"),
        ({"model": {"name": "vae-big"}}, "'vae-big' is no VAE.*vae-tiny"),
        ({"data": {"scenes": {"size": [18, 16]}}}, r"data\.scenes\.size: height 18 .* 16 or 20"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_is_refused_before_anything_is_written(change, message, tmp_path):
    settings = from_dict({"model": {"name": "vae-tiny"}, "tasks": {"depth": {}}} | change)
    with pytest.raises(UserError, match=message):
        stage.fit_vae(settings, name="vae", run_dir=str(tmp_path / "run"), overwrite=False)
    assert not (tmp_path / "run").exists()


def test_a_second_process_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun"):
        stage.fit_vae(config(), name="vae", run_dir=str(tmp_path / "run"), overwrite=False)


def test_a_loss_that_is_not_finite_stops_the_run(fit):
    with (
        mock.patch.object(stage, "objective", lambda net, x, draw: x.sum() * torch.nan),
        pytest.raises(UserError, match=r"loss is nan at step 0, task \w+, samples .*training\.lr"),
    ):
        fit(config())
