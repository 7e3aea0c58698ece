"""A run that trains a VAE: what it writes, that it learns and continues, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from stepsight import checkpoint
from stepsight.config import RunConfig, from_dict
from stepsight.data.collate import collate
from stepsight.errors import UserError
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, build_vae, to_pictures
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks
from stepsight.training.feed import Feed
from stepsight.training.fit import fit as train
from stepsight.training.planning.dry_run import describe, lines
from stepsight.training.vae import objective as vae

WEIGHTS = Path("vae") / "diffusion_pytorch_model.safetensors"


def config(
    tasks: tuple[str, ...] = ("depth", "flow", "amodal"), size: int = 16, **training: Any
) -> RunConfig:
    settings = {"images": 24, "batch": 4, "lr": 2e-3, "warmup": 8, "log_every": 4}
    settings |= {"validate_every": 0, "first_validation": 0, "validation_images": 3}
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

    def run(config: RunConfig, name: str = "run", **options: Any) -> Path:
        return lab.fit(config, tmp_path / name, **options)

    return run


# ------------------------------------------------------------------------ what a run leaves behind


def test_a_run_writes_a_vae_that_opens_and_everything_about_it(fit, lab):
    folder = fit(config(validate_every=12, first_validation=4))
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    described = {"config.yaml", "command.txt", "env.json"}
    logged = {"metrics.jsonl", "train.log", "samples/final.png"}
    published = {name for name in written if not name.startswith("checkpoints/")}
    assert published == described | logged | {"vae/config.json", WEIGHTS.as_posix()}
    assert (folder / "checkpoints/last.txt").read_text().strip() == "step-000006"
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
    runs = {name: fit(config(images=4, seed=seed), name) for name, seed in names.items()}
    states = {name: load_file(folder / WEIGHTS) for name, folder in runs.items()}
    assert all(torch.equal(states["b"][key], value) for key, value in states["a"].items())
    assert not all(torch.equal(states["c"][key], value) for key, value in states["a"].items())


@pytest.mark.slow
def test_the_loss_falls_and_images_survive_better(fit, lab):
    folder = fit(config(images=320, batch=8, log_every=8, first_validation=8, validate_every=0))
    losses = lab.losses(folder)
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])  # a turn of each task
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


# ------------------------------------------------------------------------ continued, shared out


def digests(folder: Path, step: int = 6) -> dict[str, str]:
    """sha256 of all that a later step depends on, and of the VAE that is published."""
    saved = folder / "checkpoints" / checkpoint.step_name(step)
    files = [saved / name for name in (checkpoint.BACKBONE, checkpoint.RAW, checkpoint.OPTIMIZER)]
    files += [folder / WEIGHTS, folder / "vae" / "config.json"]
    return {file.name + file.parent.name: sha256(file.read_bytes()).hexdigest() for file in files}


def measured(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without the clock."""
    clocks = ("seconds", "images_per_s", "data_share")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: x for key, x in row.items() if key not in clocks} for row in lines]


@pytest.mark.parametrize("optimizer", ["muon", pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_killed_run_continues_bit_for_bit(fit, monkeypatch, optimizer):
    settings = config(checkpoint_every=8, validate_every=12, optimizer=optimizer)
    whole, draw = fit(settings, "whole"), Feed.draw

    def dying(feed: Feed, step: int) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return draw(feed, step)

    with monkeypatch.context() as patch:
        patch.setattr(Feed, "draw", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(settings, "halves")
    halves = fit(settings, "halves", resume="auto")
    assert "continues from" in (halves / "train.log").read_text()
    assert digests(halves) == digests(whole) and measured(halves) == measured(whole)
    assert checkpoint.read(halves).meta["training_flops"] > 0


def test_a_finished_run_goes_on_when_it_is_made_longer(fit, lab):
    folder = fit(config(images=12))
    assert fit(config(images=20), resume="auto") == folder
    assert [row["step"] for row in lab.rows(folder)] == [1, 2, 3, 4, 5]


def test_micro_batches_cost_what_the_batch_costs(fit, lab):
    whole, cut = fit(config(images=16), "whole"), fit(config(images=16, micro_batch="4"), "cut")
    assert lab.losses(cut) == pytest.approx(lab.losses(whole), abs=1e-6)


def test_a_run_starts_from_the_weights_of_another_vae_only(fit, lab, tmp_path):
    first = fit(config(images=8), "first")
    frozen = config(images=4, lr=0.0, muon_lr=0.0)
    second = checkpoint.read(fit(frozen, "second", init_from=str(first)))
    weights = checkpoint.read(first).tensors(checkpoint.BACKBONE)
    for name, value in second.tensors(checkpoint.RAW).items():
        assert torch.equal(value, weights[name])
    assert second.meta["parent"] == "first" and second.meta["inherited_flops"] > 0
    backbone = lab.fit(lab.config(("depth",), images=8), tmp_path / "backbone")
    with pytest.raises(UserError, match="holds a backbone"):
        fit(frozen, "third", init_from=str(backbone))


def test_a_vae_is_no_model_that_answers(fit):
    folder = fit(config(images=4))
    with pytest.raises(UserError, match=rf"holds a VAE.*--codec.path {folder / 'vae'}"):
        DensePipeline.from_pretrained(folder)


# ------------------------------------------------------------------------ what it is trained on


def test_a_batch_shows_its_images_and_its_targets(lab, tmp_path):
    run = lab.begin(config(("semantic",), flip=False), tmp_path)
    draw = run.feed.draw(0)
    batch = collate(lab.source.samples(draw.indices))
    pictures, _ = run.objective.read(run.feed, draw, 0, range(4))
    assert pictures.shape == (4 + 4 * 3, 3, 16, 16)  # 7 classes are three pictures
    assert torch.equal(pictures[:4], batch.image)
    assert torch.equal(pictures[4:], to_pictures(run.objective.tasks["semantic"].encode(batch).x))


@pytest.mark.parametrize("task", ["flow", "semantic"])
def test_noise_belongs_to_pictures_however_the_batch_is_cut(lab, tmp_path, task):
    """Of several passes, and of several pictures a pass."""
    settings = config((task,))
    if task == "flow":
        settings.tasks["flow"] = replace(settings.tasks["flow"], components="separate")
    run = lab.begin(settings, tmp_path)
    objective, draw = run.objective, run.feed.draw(2)

    def prepared(rows: range) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(*objective.prepare(objective.read(run.feed, draw, 2, rows), 2, rows)))

    whole, parts = prepared(range(4)), [*prepared(range(2)), *prepared(range(2, 4))]
    assert len(parts) == len(whole)
    for picture, noise in parts:
        assert any(torch.equal(picture, x) and torch.equal(noise, z) for x, z in whole)
    assert len({noise.sum().item() for _, noise in parts}) == len(parts)


def test_tasks_of_one_source_take_turns(fit, lab):
    """Every batch shows the targets of one of them."""
    folder = fit(config(("depth", "flow", "amodal"), images=24))
    seen = [[key for key in row if key.startswith("loss/")] for row in lab.rows(folder)]
    assert seen == [["loss/depth"], ["loss/flow"], ["loss/amodal"]] * 2


def test_the_loss_is_what_its_formula_says():
    torch.manual_seed(0)
    net = build_vae("vae-tiny").eval()
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    posterior = net.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator("noise"))
    errors = vae.PictureErrors(net)
    found = errors(x, noise) / errors.counts(x, noise)
    error = net.decode(posterior.mean + posterior.std * noise).sample - x
    rows, columns = (error[:, :, 1:] - error[:, :, :-1]), (error[..., 1:] - error[..., :-1])
    mean, variance = posterior.mean, posterior.var
    kl = (mean**2 + variance - 1 - variance.log()).mean() / 2
    expected = error.abs().mean() + (error**2).mean()
    expected += vae.EDGES * (rows.abs().mean() + columns.abs().mean()) + vae.KL * kl
    assert torch.allclose(found, expected, atol=1e-6) and found.requires_grad


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
        ({"training": {"micro_batch": "3"}}, r"batch=16 does not divide by 1 processes x 3"),
        ({"codec": {"path": "vae"}}, r"codec\.path"),
        ({"model": {"name": "vae-big"}}, "'vae-big' is no VAE.*vae-tiny"),
        ({"model": {"name": "vae-tiny", "parametrisation": "mup"}}, "a VAE has one size"),
        ({"data": {"scenes": {"size": [18, 16]}}}, r"data\.scenes\.size: height 18 .* 16 or 20"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_is_refused_before_anything_is_written(change, message, tmp_path):
    settings = from_dict({"model": {"name": "vae-tiny"}, "tasks": {"depth": {}}} | change)
    with pytest.raises(UserError, match=message):
        train(settings, name="vae", run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(fit):
    def broken(net: torch.nn.Module, *_: torch.Tensor) -> torch.Tensor:
        return sum(p.sum() for p in net.parameters()) * torch.nan

    with (
        mock.patch.object(vae, "picture_errors", broken),
        pytest.raises(UserError, match=r"loss is nan at step 1, task \w+, samples .*--training\."),
    ):
        fit(config(on_spike="stop"))
