"""Marigold and Stable Diffusion folders: diffusers' own answers, widening, CLIP, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from drawn import member_noise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.coding import Layout
from stepsight.conversion.adapt import adapt
from stepsight.conversion.clip import empty_prompt
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import find_family
from stepsight.conversion.families.source import unet_settings
from stepsight.conversion.folders import Found
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.models.codec import open_codec
from stepsight.models.config import UNET, CodecSettings
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.tasks.config import DepthSettings
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

Folder = Callable[..., Path]
CLASSES = {"depth": "MarigoldDepthPipeline", "normals": "MarigoldNormalsPipeline"}
STEPS, MEMBERS, SEED = 4, 3, 5
HEIGHT, WIDTH = 64, 96
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


def opened(folder: Path, out: Path) -> DensePipeline:
    """Imported, written as a run, and opened as any run is."""
    write(import_published(folder), out)
    return DensePipeline.from_pretrained(out)


def picture() -> Tensor:
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def read_out(members: Tensor, task: str) -> Tensor:
    """Target space to what Marigold's pipelines merge: [0, 1], or unit vectors."""
    members = members.clip(-1, 1)
    return (members + 1) / 2 if task == "depth" else F.normalize(members, dim=1)


@pytest.mark.parametrize("scheduler", ["v1.0", "v1.1"])
@pytest.mark.parametrize("task", ["depth", "normals"])
def test_members_equal_diffusers(
    task: str, scheduler: str, diffusers_folder: Folder, published_members, tmp_path: Path
):
    folder = diffusers_folder(
        CLASSES[task], scheduler, prediction_type=task, default_processing_resolution=WIDTH
    )
    batch = Batch(2 * picture() - 1, keys=["one"], sources=["test"])
    pipeline = opened(folder, tmp_path / "run")
    ours = pipeline.sample(batch, task, nfe=STEPS, members=MEMBERS, seed=SEED)[:, 0]
    keys, shape = content_keys(batch.image), (4, HEIGHT // 8, WIDTH // 8)
    latents = member_noise(shape, keys, range(MEMBERS), SEED)
    theirs = published_members(folder, task, picture(), latents, STEPS)
    assert (read_out(ours, task) - theirs).abs().max() < 1e-4
    fewer = pipeline.sample(batch, task, nfe=1, members=1, seed=SEED)[:, 0]
    assert (read_out(fewer, task) - theirs[:1]).abs().max() > 1e-2  # the steps do matter


def test_network_equals_diffusers(diffusers_folder: Folder, tmp_path: Path):
    folder = diffusers_folder()
    net = opened(folder, tmp_path / "run").net
    peer = UNet2DConditionModel.from_pretrained(folder / "unet")
    cond, x = torch.randn(2, 2, 4, 8, 12)
    time = torch.tensor([999.0, 1.0])
    prompt = load_file(folder / "empty_text_embedding.safetensors")["empty_text_embedding"]
    with torch.no_grad():
        ours = net(x, cond, time, torch.tensor([0, 1]))  # the null row has the same prompt
        text = prompt.expand(2, -1, -1)
        theirs = peer(torch.cat([cond, x], dim=1), time, encoder_hidden_states=text).sample
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_settings_follow_the_folder(diffusers_folder: Folder):
    folder = diffusers_folder(
        CLASSES["depth"],
        "v1.1",
        default_denoising_steps=3,
        default_processing_resolution=768,
    )
    converted = import_published(folder)
    config = converted.config
    assert config.tasks == {"depth": DepthSettings(space="linear")}
    assert config.evaluation.nfe == 3
    assert converted.sizes == {"depth": (576, 768)}
    d = config.diffusion
    assert (d.schedule, d.prediction, d.spacing) == ("scaled_linear", "v", "trailing")
    assert (d.zero_terminal_snr, d.final, d.shift, d.sampling_shift) == (True, "first_level", 1, 1)
    assert (d.multires_noise, d.multires_annealed) == (0.9, True)


@pytest.mark.parametrize("free", [(True, False), (False, True)])
def test_depth_up_to_one_of_two_is_refused(free: tuple[bool, bool], diffusers_folder: Folder):
    scale, shift = free
    folder = diffusers_folder(scale_invariant=scale, shift_invariant=shift)
    with pytest.raises(UserError, match="scale_invariant and shift_invariant differ"):
        import_published(folder)


def test_older_folders_say_less(diffusers_folder: Folder):
    folder = diffusers_folder("MarigoldPipeline", "v1.0")
    with pytest.raises(UserError, match="nothing tells which it is. Name it with --family"):
        find_family(folder)
    assert find_family(folder, "marigold-depth") == Found("marigold-depth")
    converted = import_published(folder, Wishes(family="marigold-depth"))
    assert converted.config.evaluation.nfe == 10
    assert "model_index.json has no default_denoising_steps: 10" in converted.assumed
    assert converted.sizes == {"depth": (576, 768)}
    assert converted.config.diffusion.spacing == "leading"


@pytest.mark.parametrize("name", [name for name, size in UNET.items() if size.text])
def test_published_sizes_get_their_name(name: str):
    size = UNET[name]
    assert size.text is not None
    config: dict[str, Any] = {  # as in Stable Diffusion's unet/config.json
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.10.0",
        "sample_size": 96,
        "in_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": size.text[1],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        **json.loads(json.dumps(size.options)),
    }
    assert unet_settings(config, size.text[0]).name == name
    other = unet_settings(config | {"layers_per_block": 1}, size.text[0])
    assert other.name == "unet" and json.loads(other.unet)["layers_per_block"] == 1


def test_pickled_weights_are_the_same(diffusers_folder: Folder):
    folder = diffusers_folder()
    expected = import_published(folder).weights
    torch.save(load_file(folder / UNET_FILE), folder / "unet/diffusion_pytorch_model.bin")
    (folder / UNET_FILE).unlink()
    weights = import_published(folder).weights
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_stable_diffusion_starts_a_depth_model(diffusers_folder: Folder, tmp_path: Path):
    folder = diffusers_folder("StableDiffusionPipeline")
    converted = import_published(folder)
    assert find_family(folder) == Found("stable-diffusion")
    assert converted.config.tasks["image"].classes == 1  # type: ignore[attr-defined]
    published = load_file(folder / UNET_FILE)
    assert all(torch.equal(converted.weights[f"unet.{k}"], v) for k, v in published.items())

    write(converted, tmp_path / "run")
    codec = open_codec(CodecSettings(str(folder / "vae")))
    layout = Layout.of(build_tasks({"depth": DepthSettings(space="linear")}), codec)
    net = layout.build(converted.config.model)
    weights = adapt(checkpoint.read(tmp_path / "run"), net, layout, codec)
    checkpoint.load_weights(net, weights, "adapted")
    kernel = published["conv_in.weight"]
    assert torch.equal(weights["unet.conv_in.weight"], torch.cat([kernel, kernel], dim=1) / 2)
    prompt = load_file(folder / "empty_text_embedding.safetensors")["empty_text_embedding"]
    assert torch.equal(weights["prompt"], prompt.expand(2, -1, -1))


def text_encoder(folder: Path, act: str, heads: int = 2, width: int = 16) -> nn.Module:
    """A random CLIP text encoder in transformers' layout, and torch's layers with its weights."""
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation=F.gelu if act == "gelu" else lambda x: x * torch.sigmoid(1.702 * x),
        batch_first=True,
        norm_first=True,
    )
    peer = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False).eval()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.3)
    names = {"linear1": "mlp.fc1", "linear2": "mlp.fc2", "norm1": "layer_norm1"}
    names |= {"norm2": "layer_norm2", "self_attn.out_proj": "self_attn.out_proj"}
    weights = {
        "embeddings.token_embedding.weight": torch.randn(9, width),
        "embeddings.position_embedding.weight": torch.randn(7, width),
        **{f"final_layer_norm.{k}": v for k, v in peer.norm.state_dict().items()},  # type: ignore[union-attr]
    }
    for i, block in enumerate(peer.layers):
        own = block.state_dict()
        parts = {
            f"{new}.{kind}": own[f"{old}.{kind}"]
            for old, new in names.items()
            for kind in ("weight", "bias")
        }
        for kind in ("weight", "bias"):
            for part, value in zip("qkv", own[f"self_attn.in_proj_{kind}"].chunk(3)):
                parts[f"self_attn.{part}_proj.{kind}"] = value.clone()
        weights |= {f"encoder.layers.{i}.{name}": value for name, value in parts.items()}
    (folder / "text_encoder").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    named = {f"text_model.{name}": value for name, value in weights.items()}
    save_file(named, folder / "text_encoder/model.safetensors")
    config = {"hidden_act": act, "num_attention_heads": heads, "num_hidden_layers": 2}
    (folder / "text_encoder/config.json").write_text(json.dumps(config))
    tokens = {"a": 0, "<|startoftext|>": 7, "<|endoftext|>": 8}
    (folder / "tokenizer/vocab.json").write_text(json.dumps(tokens))
    return peer


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_empty_prompt_equals_torch_s_transformer(act: str, tmp_path: Path):
    peer = text_encoder(tmp_path, act)
    weights = load_file(tmp_path / "text_encoder/model.safetensors")
    tokens = weights["text_model.embeddings.token_embedding.weight"][[7, 8]]
    x = tokens + weights["text_model.embeddings.position_embedding.weight"][:2]
    with torch.no_grad():
        mask = nn.Transformer.generate_square_subsequent_mask(2)
        expected = peer(x[None], mask=mask, is_causal=True)
    torch.testing.assert_close(empty_prompt(tmp_path), expected, rtol=1e-5, atol=1e-5)


def test_prompt_comes_from_the_text_encoder(diffusers_folder: Folder):
    folder = diffusers_folder()
    (folder / "empty_text_embedding.safetensors").unlink()
    text_encoder(folder, "gelu")
    rows = import_published(folder).weights["prompt"]
    assert torch.equal(rows, empty_prompt(folder).expand(2, -1, -1))


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


def edited(file: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))

    return edit


def reshaped(folder: Path) -> None:
    """A weight missing, one too many, one of another shape."""
    weights = load_file(folder / UNET_FILE)
    del weights["conv_out.bias"]
    weights["surplus"] = torch.zeros(1)
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :5].contiguous()
    save_file(weights, folder / UNET_FILE)


def no_prompt(folder: Path) -> None:
    (folder / "empty_text_embedding.safetensors").unlink()


WRONG: list[tuple[Callable[[Path], object], list[str]]] = [
    (without("vae"), ["lacks vae/config.json"]),
    (without("scheduler"), ["lacks scheduler/scheduler_config.json"]),
    (lambda folder: (folder / UNET_FILE).unlink(), ["unet has no diffusion_pytorch_model"]),
    (reshaped, ["conv_out.bias is missing", "surplus is unexpected", "(32, 5, 3, 3)"]),
    (no_prompt, ["text_encoder/", "empty_text_embedding.safetensors"]),
    (edited("model_index.json", _class_name="FluxPipeline"), ["FluxPipeline", "Supported"]),
    (edited("model_index.json", prediction_type="disparity"), ["predicts disparity"]),
    (edited("model_index.json", use_full_z_range=False), ["use_full_z_range"]),
    (edited("unet/config.json", in_channels=9), ["8 input channels, this one 9"]),
    (edited("unet/config.json", class_embed_type="timestep"), ["class_embed_type"]),
    (lambda folder: (folder / "unet/config.json").write_text("{"), ["cannot be read as JSON"]),
]


@pytest.mark.parametrize("spoil, said", WRONG, ids=[said[0] for _, said in WRONG])
def test_unusable_folders_are_refused(
    spoil: Callable[[Path], object], said: list[str], diffusers_folder: Folder
):
    folder = diffusers_folder()
    spoil(folder)
    with pytest.raises(UserError) as caught:
        import_published(folder)
    assert all(text in str(caught.value) for text in said), str(caught.value)


def test_other_folders_are_not_claimed(tmp_path: Path):
    with pytest.raises(UserError, match="no diffusers pipeline"):
        import_published(tmp_path)
