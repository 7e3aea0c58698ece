"""Folders of VAEs: what is written and read again, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from autoencoders import LEVELS, PLAIN, close, image, make
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from stepsight.errors import DataFormatError, UserError
from stepsight.models.codec import described_codec, open_codec
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, VAES, build_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as diffusers writes it."""
    make("kl4").save_pretrained(tmp_path / "one")
    return tmp_path / "one"


# ------------------------------------------------------------------------ folders


@torch.no_grad()
def test_open_reads_what_diffusers_writes(kind, tmp_path):
    module = make(kind)
    module.save_pretrained(tmp_path)
    codec = VAE.open(tmp_path, PLAIN)
    assert close(codec.encode(image(3)), VAE.from_module(module, PLAIN).encode(image(3)))
    shape = described_codec(CodecSettings(str(tmp_path)))
    assert (shape.downsample, shape.channels(7)) == (codec.downsample, codec.channels(7))


@torch.no_grad()
def test_diffusers_reads_what_save_writes(kind, tmp_path):
    module = make(kind)
    VAE.from_module(module, PLAIN).save(tmp_path / "kept")
    again, info = type(module).from_pretrained(
        tmp_path / "kept", local_files_only=True, output_loading_info=True
    )
    assert not any(info.values())
    assert {k: again.config[k] for k in ("scaling_factor", "shift_factor")} == {
        k: module.config[k] for k in ("scaling_factor", "shift_factor")
    }
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_copy_has_the_name_and_no_trace_of_where_it_was(folder, tmp_path):
    codec = open_codec(CodecSettings(str(folder)))
    assert isinstance(codec, VAE)
    codec.save(tmp_path / "copy")
    assert VAE.open(tmp_path / "copy", PLAIN).name == codec.name
    assert str(folder) not in (tmp_path / "copy" / "config.json").read_text()
    kept = open_codec(CodecSettings("gone"), kept=tmp_path / "copy")
    assert kept.name == codec.name


def test_a_pipeline_folder_with_a_vae_in_it_will_do(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "pipeline" / "vae")
    assert VAE.open(tmp_path / "pipeline", PLAIN).name == VAE.open(folder, PLAIN).name


def test_pickled_weights_are_read_too(folder):
    name = VAE.open(folder, PLAIN).name
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert VAE.open(folder, PLAIN).name == name


def test_weights_of_the_older_attention_names_are_read(folder):
    """As in the published Stable Diffusion VAEs."""
    name = VAE.open(folder, PLAIN).name
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(folder / WEIGHTS)
    assert any("to_q" in key for key in state)
    for new, old in older.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    save_file(state, folder / WEIGHTS)
    assert VAE.open(folder, PLAIN).name == name


def test_the_name_tells_weights_and_scales_apart(folder):
    kind, digest = VAE.open(folder, PLAIN).name.rsplit("-", 1)
    assert kind == "AutoencoderKL" and len(digest) == 12 and int(digest, 16) >= 0
    module = make("kl4")
    assert VAE.from_module(module, PLAIN).name == f"{kind}-{digest}"
    module.register_to_config(scaling_factor=0.2)
    rescaled = VAE.from_module(module, PLAIN).name
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-6
    assert len({f"{kind}-{digest}", rescaled, VAE.from_module(module, PLAIN).name}) == 3


def test_a_module_stays_free_to_train_on():
    module = make("kl4").train()
    VAE.from_module(module, PLAIN)
    assert module.training and all(p.requires_grad for p in module.parameters())


# ------------------------------------------------------------------------ what is refused


def test_a_missing_folder_is_named_and_nothing_is_looked_up(tmp_path):
    with pytest.raises(UserError, match=r"stabilityai/sd-vae-ft-mse is no folder.*config\.json"):
        VAE.open(Path("stabilityai/sd-vae-ft-mse"), PLAIN)
    with pytest.raises(UserError, match=r"has no config\.json"):
        VAE.open(tmp_path, PLAIN)


def test_a_folder_without_weights_is_refused(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match=f"has no {WEIGHTS}"):
        VAE.open(folder, PLAIN)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["UNet2DConditionModel", None, "AutoencoderKLWan"])
def test_another_class_is_refused(folder, name):
    edit(folder, _class_name=name)
    with pytest.raises(UserError, match=r"'_class_name'.*AutoencoderKL or AutoencoderTiny"):
        VAE.open(folder, PLAIN)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        VAE.open(folder, PLAIN)


@pytest.mark.parametrize("change", [{"block_out_channels": "x"}, {"norm_num_groups": 3}])
def test_a_configuration_of_no_autoencoder_is_refused(folder, change):
    edit(folder, **change)
    with pytest.raises(DataFormatError, match="cannot be read"):
        VAE.open(folder, PLAIN)


@pytest.mark.parametrize(
    "change", [{"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}], ids=["own scales"]
)
def test_a_scale_for_each_channel_is_refused(folder, change):
    edit(folder, **change)
    with pytest.raises(UserError, match="latents_mean"):
        VAE.open(folder, PLAIN)


def test_other_than_rgb_is_refused():
    with pytest.raises(UserError, match="maps 1 channels to 3"):
        VAE(AutoencoderKL(**LEVELS, in_channels=1), PLAIN)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_weights_are_refused(folder, share):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataFormatError, match=WEIGHTS):
        VAE.open(folder, PLAIN)


def test_a_pickle_of_anything_but_weights_is_refused(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"weights": Path("x")}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(DataFormatError, match=r"diffusion_pytorch_model\.bin"):
        VAE.open(folder, PLAIN)
    torch.save([1, 2], folder / "diffusion_pytorch_model.bin")
    with pytest.raises(DataFormatError, match=r"diffusion_pytorch_model\.bin"):
        VAE.open(folder, PLAIN)


def test_weights_that_do_not_fit_are_refused(folder):
    state = load_file(folder / WEIGHTS)
    key = "encoder.conv_in.weight"
    cases = {
        "1 missing weights, e.g. encoder.conv_in.weight": {
            k: v for k, v in state.items() if k != key
        },
        "1 unexpected weights, e.g. extra": state | {"extra": torch.zeros(1)},
        "cannot be read": state | {key: torch.zeros(2, 2)},
    }
    for message, changed in cases.items():
        save_file(changed, folder / WEIGHTS)
        with pytest.raises(DataFormatError, match=message):
            VAE.open(folder, PLAIN)


def test_sizes_that_can_be_trained_are_without_attention_and_named_in_errors():
    for name in VAES:
        assert VAE(build_vae(name), PLAIN).downsample == 4
        assert not any("attentions" in key for key in build_vae(name).state_dict())
    with pytest.raises(UserError, match=r"'vae-tny' is no VAE.*vae-tiny"):
        build_vae("vae-tny")
