"""The VAE codec against diffusers' own autoencoders, with small random weights."""

from __future__ import annotations

import pytest
import torch
from autoencoders import KINDS, PLAIN, close, image, make
from diffusers import AutoencoderKL, AutoencoderTiny

from stepsight.errors import UserError
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, VAES, from_pictures, to_pictures


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
def test_latents_can_be_drawn_from_the_posterior(kind):
    module, x = make(kind), image(3)
    codec = VAE.from_module(module, PLAIN)
    asked: list[tuple[int, ...]] = []

    def half(shape):
        asked.append(tuple(shape))
        return torch.full((2, *shape), 0.5)

    found = codec.drawing(half).encode(x)
    mean = codec.encode(x)  # of a codec that is left as it was
    if kind == "tiny":
        assert not asked and torch.equal(found, mean)
        return
    deviation = module.encode(x).latent_dist.std * codec.scale
    assert asked == [tuple(mean.shape[1:])]
    close(found, mean + 0.5 * deviation)
    assert (found - mean).abs().min() > 1e-4


@torch.no_grad()
def test_pictures_are_clipped_before_their_channels_are_averaged():
    module = make("kl4")
    module.decoder.conv_out.weight.zero_()
    module.decoder.conv_out.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    codec, z = VAE.from_module(module, PLAIN), torch.zeros(1, 4, 2, 2)
    assert (codec.decode(z, 1) - 1).abs().max() < 1e-6
    assert (codec.decode(z, 1, clip=True) - 1 / 3).abs().max() < 1e-6


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
def test_sides_that_do_not_fit_have_whole_cells_alone_and_no_mask(size, message):
    codec = VAE.from_module(make("kl4"), PLAIN)
    if min(size) >= codec.downsample:
        cells = tuple(side // codec.downsample for side in size)
        assert codec.encode(torch.zeros(1, 3, *size)).shape[-2:] == cells
    with pytest.raises(UserError, match=message):
        codec.mask(torch.ones(1, 1, *size))


@pytest.mark.parametrize(
    "settings", [PLAIN, CodecSettings(slicing=True), CodecSettings("", "bf16")]
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
    exact, coarse = (VAE.from_module(make(kind), CodecSettings("", d)) for d in ("float32", "bf16"))
    z, rounded = exact.encode(image(3)), coarse.encode(image(3))
    assert rounded.dtype == torch.float32
    assert 0 < (z - rounded).norm() / z.norm() < 0.05
    x, again = exact.decode(z, 3), coarse.decode(z, 3)
    assert again.dtype == torch.float32
    assert 0 < (x - again).norm() / x.norm() < 0.05


@torch.no_grad()
def test_bfloat16_keeps_the_name_and_the_saved_weights(tmp_path):
    codec = VAE.from_module(make("kl4"), CodecSettings("", "bf16"))
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
