"""The perception generalist: what is imported computes what was published, for every task."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from diffusers import AutoencoderKL

from stepsight import ensemble
from stepsight.cli.main import main
from stepsight.conversion import generalist
from stepsight.conversion.dit import Trained, Wishes, expected
from stepsight.conversion.foreign import Weights
from stepsight.errors import UserError
from stepsight.execution.noise import normal
from stepsight.models.vae import VAES
from stepsight.pipeline.adaptive import picked
from stepsight.pipeline.dense import DensePipeline
from stepsight.types import Batch

# Each answer of our model, as (task, pass), and the published label that asks for it.
PUBLISHED = {("depth", 0): 1000, ("amodal", 0): 1001, ("flow", 0): 1002, ("flow", 1): 1003}


@pytest.fixture(scope="module")
def state(published):
    return published.generalist()


@pytest.fixture(scope="module")
def pipeline(state, vae, tmp_path_factory) -> DensePipeline:
    folder = tmp_path_factory.mktemp("generalist")
    torch.save(state, folder / "w.pt")
    flags = ["--out", str(folder / "run"), "--vae", str(vae)]
    assert main(["convert", "import", str(folder / "w.pt"), *flags]) == 0
    return DensePipeline.from_pretrained(folder / "run")


@pytest.fixture(scope="module")
def batch() -> Batch:
    draw = torch.Generator().manual_seed(3)
    image, second = torch.rand(2, 1, 3, 32, 32, generator=draw) * 2 - 1
    modal = torch.rand(1, 1, 32, 32, generator=draw) > 0.5
    return Batch(image, ["a"], ["test"], second=second, modal=modal)


@pytest.mark.parametrize(("task", "run"), PUBLISHED)
@pytest.mark.parametrize("step", [1.0, 981.0])
def test_every_task_computes_what_its_layout_says(
    published, state, pipeline, batch, task, run, step
):
    """The prompts, their order, the labels and the input convolutions, as published."""
    prompts = {
        "depth": torch.ones(1, 3, 32, 32),  # validity, 0 or 1
        "amodal": batch.modal.float().expand(-1, 3, -1, -1) * 2 - 1,
        "flow": batch.second,
    }
    rgb, prompt = (pipeline.codec.encode(one)[0] for one in (batch.image, prompts[task]))
    noisy = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(4))
    label = PUBLISHED[task, run]
    wanted = published.forward(state, torch.cat([rgb, prompt, noisy]), step, label, heads=2)
    coded = pipeline.code(pipeline.working(batch, task), task)
    with torch.inference_mode():
        found = pipeline.net(
            noisy[None], coded.cond[[run]], torch.tensor([step]), coded.label[[run]]
        )
    assert published.difference(found[0], wanted) <= 1e-5


def test_the_labels_are_the_rows_of_the_tasks_in_their_order(pipeline, batch):
    assert pipeline.layout.rows == {"depth": 0, "amodal": 1, "flow": 2}
    assert pipeline.layout.labels == 4
    coded = pipeline.code(pipeline.working(batch, "flow"), "flow")
    assert coded.label.tolist() == [2, 3]


def test_the_null_row_is_the_published_one(state, pipeline):
    own = pipeline.net.state_dict()["y_embedder.embedding_table.weight"]
    assert torch.equal(own, state["y_embedder.embedding_table.weight"][1000:])


def test_every_task_predicts(pipeline, batch):
    shapes = {"depth": 1, "amodal": 1, "flow": 2}
    for task, channels in shapes.items():
        found = pipeline.predict(batch, task, nfe=2, members=2).values
        assert found.shape == (1, channels, 32, 32) and found.isfinite().all()


def test_flow_is_read_in_pixels_of_384_by_512(pipeline):
    """A unit of the target is 75 pixels of a 384 x 512 frame; the working grid is 32 x 32."""
    found = pipeline.task("flow").decode(torch.ones(1, 2, 32, 32)).values[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([75 * 32 / 512, 75 * 32 / 384]))


def test_it_is_sampled_as_published(pipeline):
    """Stable Diffusion 2's scheduler: 50 leading steps with offset 1, ending at the first level."""
    times = pipeline.diffusion.schedule.times(50, "leading", offset=1, final="first_level")
    d = pipeline.config.diffusion
    assert (d.spacing, d.steps_offset, d.final, d.eta) == ("leading", 1, "first_level", 0.0)
    assert (d.schedule, d.prediction, d.sampler) == ("scaled_linear", "v", "ddim")
    assert (d.shift, d.sampling_shift, d.zero_terminal_snr) == (1.0, 1.0, False)
    assert pipeline.config.evaluation.nfe == 50
    assert pipeline.diffusion.schedule.condition(times)[[0, 1, -2, -1]].tolist() == [981, 961, 1, 0]


def test_a_scheduler_file_replaces_what_is_assumed(state, vae, convert, tmp_path, capsys):
    file = tmp_path / "scheduler_config.json"
    config = {
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "prediction_type": "epsilon", "timestep_spacing": "trailing", "steps_offset": 1,
        "set_alpha_to_one": True, "clip_sample": False,
    }  # fmt: skip
    file.write_text(json.dumps(config))
    run = DensePipeline.from_pretrained(convert(state, "--vae", vae, "--scheduler", file))
    d = run.config.diffusion
    assert (d.prediction, d.spacing, d.final) == ("eps", "trailing", "clean")
    said = capsys.readouterr().out
    assert f"diffusion (from {file}): scaled_linear, eps-prediction, ddim, trailing" in said
    assert "no --scheduler given" not in said


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_another_size_keeps_the_trained_grid(state, vae, convert, size):
    run = DensePipeline.from_pretrained(convert(state, "--vae", vae, "--size", *size))
    assert set(run.sizes.values()) == {size}
    assert run.config.model.position_grid == (4, 4)
    squares = size[0] == size[1]
    assert run.published.fit == ("square" if squares else "area")
    assert run.working_size("depth", (48, 64)) == size


def test_vae_and_scheduler_beside_the_file_are_taken(state, vae, convert, tmp_path, capsys):
    """The folder of Stable Diffusion 2, as the released script is given it."""
    beside = tmp_path / "stable-diffusion-2"
    shutil.copytree(vae, beside / "vae")
    (beside / "scheduler").mkdir()
    config = {"beta_schedule": "scaled_linear", "prediction_type": "epsilon", "steps_offset": 1}
    (beside / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    run = DensePipeline.from_pretrained(convert(state))
    assert (run.diffusion.settings.prediction, run.codec.downsample) == ("eps", 4)
    said = capsys.readouterr().out
    assert f"VAE: {beside / 'vae'}, beside the weights" in said
    assert "timestep_spacing is missing: leading" in said
    named = DensePipeline.from_pretrained(convert(state, "--vae", vae, out="named"))
    assert named.codec.name == run.codec.name
    assert f"VAE: {beside}" not in capsys.readouterr().out


# ------------------------------------------------------------------------- as the script has it


@pytest.fixture(scope="module")
def wide() -> Batch:
    """Two pictures of 24 x 40 pixels."""
    draw = torch.Generator().manual_seed(5)
    image, second = torch.rand(2, 2, 3, 24, 40, generator=draw) * 2 - 1
    modal = torch.rand(2, 1, 24, 40, generator=draw) > 0.5
    return Batch(image, ["a", "b"], ["test"] * 2, second=second, modal=modal)


def test_pictures_are_squashed_each_task_in_its_own_way(pipeline, wide):
    """Row and column under the centre of a pixel, or between the four around it."""
    rows, columns = ((torch.arange(32) + 0.5) * side / 32 - 0.5 for side in (24, 40))
    nearest = [(x + 0.5).floor().long() for x in (rows, columns)]
    seen = pipeline.working(wide, "depth").image
    assert torch.equal(seen, wide.image[:, :, nearest[0]][..., nearest[1]])
    for task, field in (("amodal", "image"), ("flow", "image"), ("flow", "second")):
        source = getattr(wide, field)
        for axis, at in ((2, rows), (3, columns)):
            last = source.shape[axis] - 1
            low = at.clamp(0, last).floor().long()
            share = (at.clamp(0, last) - low).view([-1 if a == axis else 1 for a in range(4)])
            one, two = (source.index_select(axis, (low + i).clamp(max=last)) for i in (0, 1))
            source = torch.lerp(one, two, share)
        seen = getattr(pipeline.working(wide, task), field)
        torch.testing.assert_close(seen, source, rtol=0, atol=1e-5)
    first = [(torch.arange(32) * side) // 32 for side in (24, 40)]  # the mask's rule
    mask = pipeline.working(wide, "amodal").modal
    assert torch.equal(mask, wide.modal[:, :, first[0]][..., first[1]])


@pytest.mark.parametrize("grid", [(32, 32), (24, 40), (9, 31), (75, 242)])
def test_the_working_size_is_the_models_own_square(pipeline, grid):
    assert {pipeline.working_size(task, grid) for task in pipeline.tasks} == {(32, 32)}
    assert pipeline.at(64).working_size("depth", grid) == (64, 64)
    assert pipeline.profiled("stepsight").working_size("depth", (24, 48)) == (24, 48)


def test_u_and_v_set_out_from_one_noise(pipeline, batch):
    starts = []

    def noted(stream, rows, shape):
        starts.append(normal(stream, rows, shape))
        return starts[-1]

    for one in (pipeline, pipeline.profiled("stepsight")):
        with mock.patch("stepsight.pipeline.members.normal", noted):
            one.sample(batch, "flow", nfe=1, members=2)
    shared, apart = (start.view(2, 2, 4, 8, 8) for start in starts)  # member, run
    assert torch.equal(shared[:, 0], shared[:, 1])
    assert not torch.equal(apart[:, 0], apart[:, 1])
    assert torch.equal(shared[:, 0], apart[:, 0])


def test_members_are_merged_as_the_script_does(pipeline, wide):
    """Depth by Marigold's rule at 50 pixels in [-1, 1]; amodal pictures by the median; flow by the
    mean."""
    members = torch.randn(3, 2, 1, 60, 80, generator=torch.Generator().manual_seed(6))
    merged = pipeline.task("depth").merge(members).values
    torch.testing.assert_close(merged, ensemble.merge_published(members, 50)[0])
    assert (merged.amin((1, 2, 3)) - 0).abs().max() < 1e-6 and merged.amax() < 1 + 1e-6
    for other in (
        ensemble.merge_published(members)[0],
        ensemble.merge_published(members / 2 + 0.5, 50)[0],
    ):
        assert (merged - other).abs().max() > 1e-3
    pictures = 2 * torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    middle = pictures.clamp(-1, 1).sort(dim=0).values[1]
    assert torch.equal(pipeline.task("amodal").merge(pictures).x, middle)
    flows = torch.randn(3, 2, 2, 8, 8, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(pipeline.task("flow").merge(flows).x, flows.mean(dim=0))


def test_fifty_steps_and_five_members_by_default(pipeline):
    for task in pipeline.tasks:
        setting = pipeline.default_setting(task)
        assert (setting.nfe, setting.members, setting.temperature) == (50, 5, 1.0)
        assert pipeline.profiled("stepsight").default_setting(task).members == 4


def test_answers_come_back_to_the_pictures_grid(pipeline, wide):
    for task in pipeline.tasks:
        found = pipeline.predict(wide, task, nfe=1, members=2).values
        assert found.shape[-2:] == (24, 40) and found.isfinite().all()
        both = pipeline.sample(wide, task, nfe=2, members=2)
        one = pipeline.sample(picked(wide, [1]), task, nfe=2, members=2)
        torch.testing.assert_close(both[:, 1:], one, rtol=1e-4, atol=1e-4)


def test_what_was_assumed_and_dropped_is_said(state, vae, convert, capsys):
    convert(state, "--vae", vae)
    said = capsys.readouterr().out
    for part in ("DiT-Ti/2-8E2A", "heads", "ImageNet", "assumed", "depth at 32x32", "generalist"):
        assert part in said


def test_the_release_has_the_published_names(state):
    """1110 tensors of 2758.5 M values."""
    trained = Trained("DiT-XL/2", patch=2, side=32, experts=8, variance=True)
    weights = Weights(state, Path("w.pt"))
    config = generalist.import_generalist(weights, Wishes()).config
    config = replace(config, model=replace(config.model, name="DiT-XL/2-8E2A"))
    shapes = generalist._published(expected(config, None), trained)
    assert len(shapes) == 1110
    assert shapes["blocks.27.moe.experts.7.fc2.weight"] == (1152, 4608)
    assert shapes["x_embedder.proj.conv_in_4.weight"] == (1152, 12, 2, 2)
    assert shapes["final_layer.linear.weight"] == (32, 1152)
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert round(total / 1e5) == 27585


def without(name):
    return lambda s: {n: v for n, v in s.items() if n != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("blocks.1.moe.experts.3.fc1.bias"), "experts.3.fc1.bias is missing"),
        (without("x_embedder.proj.conv_in_4.bias"), "conv_in_4.bias is missing"),
        (
            lambda s: s | {"x_embedder.proj.conv_in_2.weight": torch.zeros(64, 8, 2, 2)},
            "conv_in_2.weight is (64, 8, 2, 2) and should be (64, 12, 2, 2)",
        ),
        (
            lambda s: s | {"y_embedder.embedding_table.weight": torch.zeros(1001, 64)},
            "should be (1005, 64)",
        ),
        (lambda s: s | {"blocks.0.moe.gate.weight": torch.zeros(9, 64)}, "experts.8.fc1"),
        (lambda s: s | {"pos_embed": torch.zeros(1, 16, 64)}, "learned or different positions"),
    ],
)
def test_other_layouts_are_refused(state, change, message):
    with pytest.raises(UserError) as caught:
        generalist.import_generalist(Weights(change(state), Path("w.pt")), Wishes())
    assert message in str(caught.value)


def test_an_unknown_size_names_the_known_ones(published):
    weights = Weights(published.generalist(width=80), Path("w.pt"))
    with pytest.raises(UserError, match="width 80 and depth 3; known are .*DiT-XL 1152 x 28"):
        generalist.import_generalist(weights, Wishes())


def test_a_vae_of_other_latents_is_refused(state, tmp_path):
    AutoencoderKL(**VAES["vae-tiny"] | {"latent_channels": 16}).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match="16 latent channels"):
        generalist.import_generalist(Weights(state, Path("w.pt")), Wishes(vae=tmp_path / "vae"))
