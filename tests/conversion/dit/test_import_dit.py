"""Class-conditional DiT checkpoints: what is imported computes what was published."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import load_file, save_file

from stepsight import checkpoint
from stepsight.cli.main import main
from stepsight.coding import Layout, build_network
from stepsight.config import from_dict
from stepsight.conversion.dit import Wishes, expected, export_dit, import_dit, published_shapes
from stepsight.conversion.foreign import Weights
from stepsight.conversion.write import Converted, write
from stepsight.data.decoding.images import write_image
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.models.codec import described_codec
from stepsight.models.layers import position_table
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.table import build_tasks

HEADS = {64: 2, 128: 4}


def ask(pipeline: DensePipeline, z: torch.Tensor, step: float, label: int) -> torch.Tensor:
    """Our answer "8 h w" for one latent."""
    with torch.inference_mode():
        return pipeline.net(z[None], z[None, :0], torch.tensor([step]), torch.tensor([label]))[0]


@pytest.mark.parametrize(("width", "depth", "patch"), [(64, 3, 2), (128, 4, 4)])
def test_an_imported_dit_computes_what_its_layout_says(
    published, convert, vae, width, depth, patch
):
    state = published.dense(width, depth, patch)
    pipeline = DensePipeline.from_pretrained(convert(state, "--vae", vae))
    z = torch.randn(4, 4 * patch, 4 * patch, generator=torch.Generator().manual_seed(1))
    for step, label in ((0.0, 0), (371.0, 207), (999.0, 1000)):
        wanted = published.forward(state, z, step, label, HEADS[width])
        assert published.difference(ask(pipeline, z, step, label), wanted) <= 1e-5
    assert pipeline.sizes == {"image": (16 * patch, 16 * patch)}
    assert pipeline.task("image").label_count == 1000


def test_an_imported_dit_computes_what_diffusers_computes(published, convert, vae):
    state = published.dense()
    peer = DiTTransformer2DModel(2, 32, 4, 8, num_layers=3, sample_size=8).eval()
    peer.load_state_dict(for_diffusers(state))
    for one in peer.transformer_blocks:  # DiT's frequencies; diffusers as shipped differs by 2e-2
        one.norm1.emb.time_proj.downscale_freq_shift = 0
    pipeline = DensePipeline.from_pretrained(convert(state, "--vae", vae))
    z = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = peer(z[None], torch.tensor([371]), torch.tensor([207])).sample[0]
    assert published.difference(ask(pipeline, z, 371.0, 207), wanted) <= 1e-5


def for_diffusers(state):
    """A published state dict under diffusers' names; every block repeats the embedders."""
    names = {
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
        "x_embedder.proj": "pos_embed.proj",
    }
    found = {}
    for i in range(3):
        own, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        names |= {
            f"{own}.attn.proj": f"{theirs}.attn1.to_out.0",
            f"{own}.mlp.fc1": f"{theirs}.ff.net.0.proj",
            f"{own}.mlp.fc2": f"{theirs}.ff.net.2",
            f"{own}.adaLN_modulation.1": f"{theirs}.norm1.linear",
        }
        for kind in ("weight", "bias"):
            for part, value in zip("qkv", state[f"{own}.attn.qkv.{kind}"].chunk(3)):
                found[f"{theirs}.attn1.to_{part}.{kind}"] = value
            for number, layer in ((0, "linear_1"), (2, "linear_2")):
                value = state[f"t_embedder.mlp.{number}.{kind}"]
                found[f"{theirs}.norm1.emb.timestep_embedder.{layer}.{kind}"] = value
        table = state["y_embedder.embedding_table.weight"]
        found[f"{theirs}.norm1.emb.class_embedder.embedding_table.weight"] = table
    for own, theirs in names.items():
        found |= {f"{theirs}.{kind}": state[f"{own}.{kind}"] for kind in ("weight", "bias")}
    return found


def test_the_averaged_weights_of_a_training_file_are_taken(published, convert, vae, capsys):
    state = published.dense()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    full = {"model": other, "ema": state, "opt": {"state": {}}, "args": argparse.Namespace(x=1)}
    saved = checkpoint.read(convert(full, "--vae", vae))
    bias = saved.tensors(checkpoint.BACKBONE)["final_layer.linear.bias"]
    assert torch.equal(bias, state["final_layer.linear.bias"])
    assert "'ema'" in capsys.readouterr().out


def test_half_precision_and_the_prefix_of_parallel_training_are_read(published, convert, vae):
    state = {f"module.{n}": v.bfloat16() for n, v in published.dense().items()}
    state["module.pos_embed"] = published.dense()["pos_embed"]
    own = checkpoint.read(convert(state, "--vae", vae)).tensors(checkpoint.BACKBONE)
    assert {value.dtype for value in own.values()} == {torch.float32}
    assert "final_layer.linear.bias" in own


def test_an_imported_dit_draws_pictures(published, convert, vae):
    pipeline = DensePipeline.from_pretrained(convert(published.dense(), "--vae", vae))
    blank = torch.zeros(20, 20, 3, dtype=torch.uint8).numpy()
    kwargs = dict(task="image", nfe=2, members=1)
    first, second = (pipeline(blank, class_id=n, **kwargs) for n in (3, 4))  # type: ignore[arg-type]
    assert first.values.shape == (1, 3, 20, 20) and first.values.isfinite().all()
    assert not torch.equal(first.values, second.values)


def test_a_dit_is_sampled_as_published(published, convert, vae):
    config = DensePipeline.from_pretrained(convert(published.dense(), "--vae", vae)).config
    d = config.diffusion
    assert (d.schedule, d.prediction, d.sampler, d.spacing) == (
        "linear", "eps", "ancestral_learned", "respaced",
    )  # fmt: skip
    assert (d.guidance, d.guided_channels) == (4.0, 3)
    assert config.evaluation.nfe == 250 and not d.zero_terminal_snr


@pytest.mark.parametrize("experts", [0, 3])
def test_a_dit_without_sigma_and_of_other_classes(published, convert, vae, experts):
    state = published.dense(rows=11, outputs=4, experts=experts)
    pipeline = DensePipeline.from_pretrained(convert(state, "--vae", vae))
    z = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    for label in (0, 9, 10):
        wanted = published.forward(state, z, 371.0, label, heads=2)
        assert wanted.shape == (4, 8, 8)
        assert published.difference(ask(pipeline, z, 371.0, label), wanted) <= 1e-5
    assert pipeline.config.diffusion.sampler == "ancestral_large"
    assert not pipeline.config.model.learned_variance
    assert pipeline.task("image").label_count == 10


def test_a_picture_of_no_class_is_the_null_row_s(published, convert, vae):
    """And guided by 0, every class gives it."""
    pipeline = DensePipeline.from_pretrained(convert(published.dense(rows=6), "--vae", vae))
    blank = torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()

    def drawn(class_id, guidance: float) -> torch.Tensor:
        one = pipeline.sampling(guidance=guidance, sampler="ddim")
        return one(blank, "image", class_id=class_id, nfe=2, members=1).values

    null = drawn("null", 1.0)
    assert not torch.allclose(null, drawn(3, 1.0), atol=1e-2)
    other = pipeline.sampling(guidance=0.0, sampler="ddim")
    other.diffusion = Diffusion(replace(other.diffusion.settings, guided_channels=0))
    found = other(blank, "image", class_id=3, nfe=2, members=1).values
    torch.testing.assert_close(found, null, atol=1e-4, rtol=1e-4)


def test_the_command_guides_and_leaves_the_class_out(published, convert, vae, tmp_path):
    folder = convert(published.dense(rows=6), "--vae", vae)
    write_image(tmp_path / "a.png", torch.zeros(3, 32, 32, dtype=torch.uint8))
    out = tmp_path / "out"

    def predicted(*flags: object) -> np.ndarray:
        arguments = ["predict", tmp_path / "a.png", "--checkpoint", folder, "--task", "image"]
        arguments += ["--nfe", 2, "--members", 1, "--out", out, *flags]
        assert main([str(one) for one in arguments]) == 0
        return np.load(out / "a-image.npy")

    usual, plain, null = (
        predicted("--class-id", 3),
        predicted("--class-id", 3, "--guidance", 1),
        predicted("--class-id", "null", "--guidance", 1),
    )
    np.testing.assert_array_equal(usual, predicted("--class-id", 3, "--guidance", 4))
    assert all(np.abs(a - b).max() > 1e-3 for a, b in ((usual, plain), (plain, null)))


def test_a_scheduler_s_file_leaves_guidance_alone(published, convert, vae, tmp_path):
    file = tmp_path / "scheduler_config.json"
    file.write_text('{"_class_name": "DDIMScheduler", "clip_sample": false}')
    folder = convert(published.dense(), "--vae", vae, "--scheduler", file)
    d = DensePipeline.from_pretrained(folder).config.diffusion
    assert (d.sampler, d.guidance, d.guided_channels) == ("ddim", 4.0, 3)


def test_another_size_stretches_the_trained_positions(published, convert, vae):
    """At 32 x 96 pixels a 4 x 12 grid lies within the trained 4 x 4: every third column of tokens
    is where a trained one was."""
    state = published.dense()
    folder = convert(state, "--vae", vae, "--size", 32, 96)
    pipeline = DensePipeline.from_pretrained(folder)
    assert pipeline.sizes == {"image": (32, 96)}
    assert pipeline.config.model.position_grid == (4, 4)
    table = position_table(4, 12, 64, grid=pipeline.config.model.position_grid)
    trained = state["pos_embed"].view(4, 4, 64)
    torch.testing.assert_close(table.view(4, 12, 64)[:, 1::3], trained, atol=1e-5, rtol=0)
    z = torch.randn(4, 8, 24, generator=torch.Generator().manual_seed(3))
    wanted = published.forward(state | {"pos_embed": table}, z, 500.0, 7, heads=2)
    assert published.difference(ask(pipeline, z, 500.0, 7), wanted) <= 1e-5


def test_pictures_of_another_shape_stretch_the_trained_positions(published, convert, vae):
    folder = convert(published.dense(), "--vae", vae, "--size", 32, 32)
    assert DensePipeline.from_pretrained(folder).config.model.position_grid == (4, 4)


def test_without_a_vae_one_is_put_beside_the_checkpoints(published, convert, vae, capsys):
    folder = convert(published.dense())
    assert "codec" in capsys.readouterr().out
    with pytest.raises(UserError, match="vae"):
        DensePipeline.from_pretrained(folder)
    (folder / "codec").symlink_to(vae)
    assert DensePipeline.from_pretrained(folder).codec.downsample == 4


def test_xl_has_the_published_names(published):
    """292 tensors, of 675 M values (DiT paper, table 4: 675 M parameters)."""
    config = import_dit(Weights(published.dense(), Path("w.pt")), Wishes()).config
    config = replace(config, model=replace(config.model, name="DiT-XL/2"))
    shapes = published_shapes(expected(config, None), 16)
    assert len(shapes) == 292
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert round(total / 1e6) == 675


# ------------------------------------------------------------------------------ export


@pytest.mark.parametrize(
    "layout", [{}, {"rows": 11, "outputs": 4}, {"experts": 3}], ids=["sigma", "none", "experts"]
)
def test_an_export_is_what_was_imported(published, convert, vae, tmp_path, layout):
    state = published.dense(**layout)
    saved = checkpoint.read(convert(state, "--vae", vae))
    export_dit(saved, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    found = load_file(file)
    assert list(sorted(found)) == sorted(state)
    for name in state.keys() - {"pos_embed"}:
        assert torch.equal(found[name], state[name])
    torch.testing.assert_close(found["pos_embed"], state["pos_embed"], atol=1e-6, rtol=0)
    again = checkpoint.read(convert(file, "--vae", vae, out="again"))
    assert again.digest() == saved.digest()


def perception(tmp_path, settings, tasks, sizes=None):
    """A checkpoint of random weights for some tasks."""
    config = from_dict({"model": settings, "tasks": tasks, "codec": {"path": "vae"}})
    built = build_tasks(config.tasks)
    codec = described_codec(config.codec)
    torch.manual_seed(0)
    net = build_network(config, built, codec)
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    sizes = sizes or {task: (64, 96) for task in built}
    write(Converted(config, dict(net.state_dict()), sizes), tmp_path / "run")
    return net.eval(), checkpoint.read(tmp_path / "run"), Layout.of(built, codec)


@pytest.mark.parametrize("name", ["DiT-Ti/2", "DiT-Ti/2-4E2A"])
def test_an_exported_perception_model_takes_the_condition_first(published, tmp_path, name):
    settings = {"name": name, "learned_variance": True}
    tasks = {"depth": {}, "amodal": {}, "flow": {"cost_volume": False}}
    net, saved, layout = perception(tmp_path, settings, tasks)
    export_dit(saved, tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    x, cond = torch.randn(4, 8, 12), torch.randn(layout.cond, 8, 12)
    label = layout.rows["amodal"]
    with torch.inference_mode():
        own = net(x[None], cond[None], torch.tensor([500.0]), torch.tensor([label]))[0]
    wanted = published.forward(state, torch.cat([cond, x]), 500.0, label, heads=2)
    assert published.difference(own, wanted) <= 1e-5
    torch.testing.assert_close(state["pos_embed"], position_table(4, 6, 64))


@pytest.mark.parametrize(
    ("settings", "tasks", "message"),
    [
        ({"name": "split-8"}, {"depth": {}}, "split-8"),
        ({"name": "DiT-Ti/2", "input": "per_task"}, {"depth": {}}, "per_task"),
        ({"name": "DiT-Ti/2", "qk_norm": True}, {"depth": {}}, "qk_norm"),
        ({"name": "DiT-Ti/2"}, {"flow": {}}, "cost volume"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(tmp_path, settings, tasks, message):
    _, saved, _ = perception(tmp_path, settings, tasks)
    with pytest.raises(UserError, match=message):
        export_dit(saved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tasks_of_different_sizes_have_no_common_positions(tmp_path):
    sizes = {"depth": (64, 64), "amodal": (64, 96)}
    _, saved, _ = perception(tmp_path, {"name": "DiT-Ti/2"}, {"depth": {}, "amodal": {}}, sizes)
    with pytest.raises(UserError, match="different sizes"):
        export_dit(saved, tmp_path / "out")


# ------------------------------------------------------------------------------ refusals


def damaged(state, name, change):
    return state | {name: change(state[name])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: damaged(s, "pos_embed", lambda p: p + 0.01), "learned or different"),
        (lambda s: damaged(s, "pos_embed", lambda p: p[:, :15]), "learned or different"),
        (lambda s: {n: v for n, v in s.items() if n != "pos_embed"}, "pos_embed is missing"),
        (lambda s: s | {"blocks.7.attn.proj.bias": torch.zeros(64)}, "width 64 and depth 8"),
        (lambda s: s | {"spare": torch.zeros(1)}, "spare is unexpected"),
        (lambda s: {n: v for n, v in s.items() if n != "t_embedder.mlp.0.bias"}, "is missing"),
        (lambda s: damaged(s, "final_layer.linear.weight", lambda w: w[:16]), "should be"),
        (lambda s: damaged(s, "x_embedder.proj.weight", lambda w: w.flatten(1)), "4 axes"),
    ],
)
def test_other_layouts_are_refused_before_anything_is_written(
    published, tmp_path, capsys, change, message
):
    save_file(change(published.dense()), tmp_path / "weights.safetensors")
    out = tmp_path / "out"
    arguments = ["convert", "import", str(tmp_path / "weights.safetensors"), "--out", str(out)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not out.exists()


def test_one_error_lists_all_faults(published):
    state = published.dense()
    del state["t_embedder.mlp.0.bias"]
    state |= {"spare": torch.zeros(1), "final_layer.linear.bias": torch.zeros(3)}
    with pytest.raises(UserError) as caught:
        import_dit(Weights(state, Path("w.pt")), Wishes())
    for name in ("t_embedder.mlp.0.bias", "spare", "final_layer.linear.bias"):
        assert name in str(caught.value)


def test_a_size_that_is_no_multiple_is_refused(published, vae):
    weights = Weights(published.dense(), Path("w.pt"))
    with pytest.raises(UserError, match="--size: 30 is not a multiple of 8"):
        import_dit(weights, Wishes(vae=vae, size=(32, 30)))
