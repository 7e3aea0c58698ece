"""The VAE codec against diffusers' own autoencoders, with small random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from stepsight.errors import DataFormatError, UserError
from stepsight.models.codec import described_codec, open_codec
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, VAES, build_vae, from_pictures, to_pictures

PLAIN = CodecSettings()
LEVELS = dict(
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(8, 8, 16),
    norm_num_groups=4,
)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def make(kind: str) -> AutoencoderKL | AutoencoderTiny:
    torch.manual_seed(0)
    if kind == "tiny":
        blocks = dict(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
        return AutoencoderTiny(
            **blocks, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4
        ).eval()
    if kind == "kl16":
        return AutoencoderKL(
            **LEVELS, latent_channels=16, scaling_factor=0.36, shift_factor=0.12
        ).eval()
    return AutoencoderKL(**LEVELS, sample_size=32).eval()


KINDS = {"kl4": (4, 4), "kl16": (16, 4), "tiny": (4, 8)}  # latent channels, pixels a cell


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as diffusers writes it."""
    make("kl4").save_pretrained(tmp_path / "one")
    return tmp_path / "one"


def image(channels: int, side: int = 16, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(channels)
    return torch.rand(batch, channels, side, side, generator=draw) * 2 - 1


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def lossless(latents: int = 3) -> VAE:
    """A codec whose autoencoder only moves pixels into channels: a cell is a pixel."""
    module = AutoencoderKL(norm_num_groups=4, block_out_channels=(8,), latent_channels=latents)
    codec = VAE(module, PLAIN)
    same = type("Same", (), {})
    same.encode = lambda _, x: type("", (), {"latent_dist": type("", (), {"mean": x})})
    same.decode = lambda _, z: type("", (), {"sample": z})
    codec._module = same()
    return codec


# ------------------------------------------------------------------------ numbers of the library


@torch.no_grad()
def test_encoding_is_the_scaled_posterior_mean(kind):
    module, x = make(kind), image(3)
    found = VAE.from_module(module, PLAIN).encode(x)
    if kind == "tiny":
        expected = module.encode(x).latents
    else:
        shift = {"kl4": 0.0, "kl16": 0.12}[kind]
        scale = {"kl4": 0.18215, "kl16": 0.36}[kind]
        expected = (module.encode(x).latent_dist.mean - shift) * scale
    latents, cell = KINDS[kind]
    assert found.shape == (2, latents, 16 // cell, 16 // cell)
    assert found.dtype == torch.float32 and expected.std() > 1e-3
    assert close(found, expected)


@torch.no_grad()
def test_decoding_is_the_library_after_undoing_the_scale(kind):
    module = make(kind)
    codec = VAE.from_module(module, PLAIN)
    z = torch.randn(2, codec.latent_channels, 4, 4)
    shift, scale = module.config.shift_factor or 0.0, module.config.scaling_factor
    expected = module.decode(z / scale + shift).sample
    assert expected.std() > 1e-3 and close(codec.decode(z, 3), expected)


@torch.no_grad()
def test_decoding_inverts_the_scale_of_encoding(kind):
    module, x = make(kind), image(3)
    codec = VAE.from_module(module, PLAIN)
    raw = module.encode(x)
    raw = raw.latents if kind == "tiny" else raw.latent_dist.mean
    assert close(codec.decode(codec.encode(x), 3), module.decode(raw).sample)


# ------------------------------------------------------------------------ any number of channels


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_shapes_of_the_round_trip(kind, channels):
    codec = VAE.from_module(make(kind), PLAIN)
    x = image(channels)
    z = codec.encode(x)
    groups = {1: 1, 2: 1, 3: 1, 7: 3}[channels]
    assert z.shape[1] == codec.channels(channels) == groups * KINDS[kind][0]
    assert codec.decode(z, channels).shape == x.shape


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_no_channel_is_lost_or_exchanged(channels):
    codec, x = lossless(), image(channels)
    codec.scale, codec.shift = 0.5, 0.25
    assert close(codec.decode(codec.encode(x), channels), x, 1e-6)
    assert close(from_pictures(to_pictures(x), channels), x, 1e-6)


def test_one_channel_is_repeated_and_read_back_as_the_mean():
    x = image(1)
    assert torch.equal(to_pictures(x), x.expand(-1, 3, -1, -1))
    three = image(3)
    assert close(from_pictures(three, 1), three.mean(1, keepdim=True))


def test_channels_are_padded_with_zeros_to_pictures_of_three():
    pictures = to_pictures(image(4, batch=2))
    assert pictures.shape[0] == 4
    assert torch.equal(pictures[1, 0], image(4)[0, 3])  # the second picture of the first image
    assert pictures[1, 1:].abs().max() == 0


@torch.no_grad()
def test_each_group_is_encoded_by_itself():
    codec, x = VAE.from_module(make("kl4"), PLAIN), image(7)
    z = codec.encode(x)
    assert close(z[:, 4:8], codec.encode(x[:, 3:6]))
    assert close(codec.decode(z, 7)[:, 3:6], codec.decode(z[:, 4:8], 3))


@torch.no_grad()
def test_surplus_channels_of_a_latent_are_not_read():
    codec = VAE.from_module(make("kl4"), PLAIN)
    z = codec.encode(image(3))
    surplus = torch.cat([z, torch.full_like(z, torch.nan)], dim=1)
    assert torch.equal(codec.decode(surplus, 2), codec.decode(z, 2))


# ------------------------------------------------------------------------ masks, sizes, gradients


def test_a_cell_is_valid_only_if_its_whole_block_is():
    codec = VAE.from_module(make("kl4"), PLAIN)
    valid = torch.ones(2, 1, 8, 12, dtype=torch.bool)
    valid[0, 0, 3, 4] = False  # the last row of the first block row, second block column
    expected = torch.ones(2, 1, 2, 3, dtype=torch.bool)
    expected[0, 0, 0, 1] = False
    assert torch.equal(codec.mask(valid), expected)
    assert torch.equal(codec.mask(valid.float()), expected)


@pytest.mark.parametrize(
    "size, message", [((18, 16), "height 18 .* 16 or 20"), ((16, 3), "width 3 .* 4 or 8")]
)
def test_sides_that_do_not_fit_are_refused_with_the_nearest(size, message):
    codec = VAE.from_module(make("kl4"), PLAIN)
    with pytest.raises(UserError, match=message):
        codec.encode(torch.zeros(1, 3, *size))
    with pytest.raises(UserError, match=message):
        codec.mask(torch.ones(1, 1, *size))


@pytest.mark.parametrize(
    "settings", [PLAIN, CodecSettings(slicing=True), CodecSettings("", "bfloat16")]
)
def test_decoding_is_differentiable_and_weights_are_fixed(kind, settings):
    module = make(kind)
    codec = VAE(module, settings)
    z = codec.encode(image(7).requires_grad_())
    assert not z.requires_grad
    z = z.requires_grad_()
    codec.decode(z, 7).square().sum().backward()
    assert z.grad is not None and z.grad.isfinite().all()
    assert z.grad.abs().amin(dim=(0, 2, 3)).shape == (codec.channels(7),)
    assert (z.grad.abs().amax(dim=(0, 2, 3)) > 0).all()  # every latent channel matters
    assert not module.training and all(p.grad is None for p in module.parameters())


def test_gradients_pass_tiles():
    codec = VAE.from_module(make("kl4"), CodecSettings(tiling=True))
    z = torch.randn(1, 4, 16, 16, requires_grad=True)
    codec.decode(z, 3).square().sum().backward()
    assert z.grad is not None and (z.grad.abs().sum(dim=1) > 0).all()


# ------------------------------------------------------------------------ precision and memory


@torch.no_grad()
def test_bfloat16_is_near_and_returns_float32(kind):
    exact, coarse = (
        VAE.from_module(make(kind), CodecSettings(dtype=d)) for d in ("float32", "bfloat16")
    )
    z, rounded = exact.encode(image(3)), coarse.encode(image(3))
    assert rounded.dtype == torch.float32
    assert 0 < (z - rounded).norm() / z.norm() < 0.05
    x, again = exact.decode(z, 3), coarse.decode(z, 3)
    assert again.dtype == torch.float32
    assert 0 < (x - again).norm() / x.norm() < 0.05


@torch.no_grad()
def test_bfloat16_keeps_the_name_and_the_saved_weights(tmp_path):
    codec = VAE.from_module(make("kl4"), CodecSettings(dtype="bfloat16"))
    codec.save(tmp_path)
    again = VAE.open(tmp_path, PLAIN)
    assert codec.name == again.name
    assert close(again.encode(image(3)), VAE.from_module(make("kl4"), PLAIN).encode(image(3)))


@torch.no_grad()
def test_slicing_changes_nothing(kind):
    whole, sliced = (VAE.from_module(make(kind), CodecSettings(slicing=s)) for s in (False, True))
    z = whole.encode(image(7))
    assert close(sliced.encode(image(7)), z) and close(sliced.decode(z, 7), whole.decode(z, 7))


@torch.no_grad()
def test_tiling_is_near_on_an_image_larger_than_a_tile():
    """On noise, whose mean and deviation, which the VAE divides by, are about equal in all tiles.

    Tiles differ by the zeros around them, most of all where the last ones are cut.
    """
    torch.manual_seed(0)
    wide = VAES["vae-tiny"] | {"block_out_channels": (16, 32, 64)}
    module = AutoencoderKL(**wide)  # without attention, which would look across tiles
    x, z = image(3, 128, batch=1), torch.randn(1, 4, 32, 32)
    whole, tiled = (VAE.from_module(module, CodecSettings(tiling=t)) for t in (False, True))
    for exact, near in (
        (whole.encode(x), tiled.encode(x)),
        (whole.decode(z, 3), tiled.decode(z, 3)),
    ):
        assert near.shape == exact.shape and not torch.equal(near, exact)
        assert (near - exact).norm() / exact.norm() < 0.3
        quarter = exact.shape[-1] // 4  # within the first tile, which is a half
        exact, near = (part[..., 2:quarter, 2:quarter] for part in (exact, near))
        assert (near - exact).norm() / exact.norm() < 0.15


def test_tiling_where_the_library_cannot_is_refused():
    small = AutoencoderTiny(
        latent_channels=16,
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    with pytest.raises(UserError, match=r"codec\.tiling.*slicing"):
        VAE(small, CodecSettings(tiling=True))
    assert VAE(make("tiny"), CodecSettings(tiling=True)).encode(image(3)).shape == (2, 4, 2, 2)


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
