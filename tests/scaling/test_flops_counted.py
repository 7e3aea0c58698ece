"""Closed forms against torch's own counter, exactly, on networks that are built without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stepsight.models.config import SPLIT, UNET, DiTSize, ModelSettings, parse
from stepsight.models.factory import active_parameters as active_of
from stepsight.models.factory import build, count_flops
from stepsight.models.vae import VAES, build_vae
from stepsight.scaling import flops
from stepsight.scaling.flops import (
    DiTShape,
    KLShape,
    SplitFlops,
    SplitShape,
    TinyShape,
    UNetShape,
    split_flops,
)
from stepsight.scaling.flops.accounting import BackboneShape
from stepsight.scaling.flops.vae import AutoencoderShape

TARGET, COND, LABELS, FEATURES = 3, 6, 4, 9
CHANNELS = (TARGET + COND, TARGET)
SIZES = [(16, 16), (32, 48)]

Factory = Callable[[], nn.Module]


def backbone(name: str, features: int = 0, **settings: Any) -> Factory:
    return lambda: build(
        ModelSettings(name=name, **settings),
        target_channels=TARGET,
        cond_channels=COND,
        labels=LABELS,
        feature_channels=features,
    )


def example(height: int, width: int, features: int = 0, cond: int = COND) -> tuple[Any, ...]:
    """x, the condition, time, label and features, without memory."""
    with torch.device("meta"):
        x, images = (torch.empty(1, channels, height, width) for channels in (TARGET, cond))
        volume = torch.empty(1, features, height // 2, width // 2) if features else None
        return x, images, torch.zeros(1), torch.zeros(1, dtype=torch.long), volume


def meta(factory: Factory) -> nn.Module:
    with torch.device("meta"):
        return factory()


def numbers(factory: Factory) -> int:
    return sum(p.numel() for p in meta(factory).parameters())


def check(shape: BackboneShape, factory: Factory, sizes=SIZES, features: int = 0) -> None:
    assert flops.parameters(shape) == numbers(factory)
    assert flops.active_parameters(shape) <= flops.parameters(shape)
    for height, width in sizes:
        counted = count_flops(factory, example(height, width, features))
        assert flops.forward_flops(shape, height, width) == counted


@pytest.mark.parametrize("name", ["DiT-Ti/2", "DiT-Mi/4", "DiT-Ti/2-8E2A", "DiT-Ti/4-4E1A"])
def test_dit_and_experts(name: str):
    size = parse(name)
    assert isinstance(size, DiTSize)
    row = (size.width, size.depth, size.patch, *CHANNELS, LABELS + 1)
    shape = DiTShape(*row, experts=size.experts, active=size.active)
    check(shape, backbone(name))
    assert flops.active_parameters(shape) == active_of(meta(backbone(name)))


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("features, looked, cond", [(0, 0, COND), (FEATURES, 5, COND), (0, 0, 3)])
def test_the_halves_of_a_split_backbone(name: str, features: int, looked: int, cond: int):
    """Read, encoded and called, each counted by itself: for a task that has what there is, and for
    one beside it that has neither features nor anything to look at again."""
    shape = split_shape(name, features, looked, cond)
    net: Any = meta(lambda: split_net(name, features, looked, cond))
    assert flops.parameters(shape) == sum(p.numel() for p in net.parameters())
    for height, width in [(16, 16), (8, 40)]:
        again = torch.empty(1, looked, height // 2, width // 2, device="meta") if looked else None
        given = example(height, width, features, cond)
        own = {"features": features > 0, "looked": looked > 0}
        most, least = (split_flops(shape, height, width, **one) for one in (own, {}))
        assert most == counted(net, given, again)
        assert least == counted(net, (*given[:4], None), None)
        total = flops.forward_flops(shape, height, width)
        assert total == most.encode + most.call
        assert total - least.encode - least.call == 2 * extra(shape, height * width)


def extra(shape: SplitShape, cells: int) -> int:
    """MACs of features and of looking again, by hand."""
    fine = (shape.features + shape.looked) * shape.channels[0] * cells // 4
    return fine + shape.features * shape.width * cells // 64


def split_shape(name: str, features: int, looked: int, cond: int) -> SplitShape:
    size = SPLIT[name]
    sizes = (size.channels, size.width, size.encoder, size.trunk, size.blocks, size.decoder)
    return SplitShape(*sizes, TARGET, cond, LABELS + 1, features, looked)


def split_net(name: str, features: int, looked: int, cond: int) -> nn.Module:
    return build(
        ModelSettings(name=name),
        target_channels=TARGET,
        cond_channels=cond,
        labels=LABELS,
        feature_channels=features,
        looked_channels=looked,
    )


def counted(net: Any, given: tuple[Any, ...], again: Tensor | None) -> SplitFlops:
    x, images, time, label, volume = given
    encoded = net.encode(images, label, volume)
    seen = {} if again is None else {"looked": (again, None)}
    runs = [
        lambda: net.read(images),
        lambda: net.encode(images, label, volume),
        lambda: net(x, encoded, time, label, **seen),
    ]
    totals = []
    for run in runs:
        with FlopCounterMode(display=False) as counter:
            run()
        totals.append(counter.get_total_flops())
    return SplitFlops(*totals)


def unet_shape(name: str, channels: tuple[int, int], labels: int) -> UNetShape:
    """Attention everywhere but at the lowest level, or, without text, there alone."""
    size = UNET[name]
    upper = len(size.channels) - 1
    attention = (size.text is not None,) * upper + (size.text is None,)
    layers = 2 if size.text else 1
    return UNetShape(size.channels, attention, *channels, layers, labels, size.text)


@pytest.mark.parametrize("name", UNET)
def test_unets(name: str):
    shape = unet_shape(name, CHANNELS, LABELS + 1)
    check(shape, backbone(name), sizes=[(16, 24)])  # of several sizes below


CLASSES = """{"_class_name": "UNet2DModel", "block_out_channels": [8, 16, 24],
"down_block_types": ["AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
"up_block_types": ["AttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D"],
"layers_per_block": 3, "norm_num_groups": 4, "attention_head_dim": 4}"""


def test_a_unet_of_ones_own():
    shape = UNetShape((8, 16, 24), (True, False, True), *CHANNELS, layers=3, labels=LABELS + 1)
    check(shape, backbone("unet", unet=CLASSES))


@pytest.mark.parametrize("name, released", [("unet-sd1", 859_520_964), ("unet-sd2", 865_910_724)])
def test_parameters_of_the_released_unets(name: str, released: int):
    """Stable Diffusion 1 and 2: 4 channels in and out. A prompt of ours is stored besides."""
    shape, size = unet_shape(name, (4, 4), labels=1), UNET[name]
    assert size.text is not None
    tokens, width = size.text
    assert flops.parameters(shape) == released + tokens * width


class Half(nn.Module):
    """An autoencoder's encoder or decoder as the whole module."""

    def __init__(self, vae: nn.Module, half: str) -> None:
        super().__init__()
        self.vae, self.half = vae, half

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.vae, self.half)(x)


def check_autoencoder(shape: AutoencoderShape, latents: int, factory: Factory) -> None:
    side = 2 ** (shape.levels - 1)
    for height, width in [(32, 32), (32, 64)]:
        picture = torch.empty(1, 3, height, width)
        latent = torch.empty(1, latents, height // side, width // side)
        encoding = count_flops(lambda: Half(factory(), "encode"), (picture,))
        decoding = count_flops(lambda: Half(factory(), "decode"), (latent,))
        assert flops.encoder_flops(shape, height, width) == encoding
        assert flops.decoder_flops(shape, height, width) == decoding
    assert flops.autoencoder_parameters(shape) == numbers(factory)


STABLE = (128, 256, 512, 512)


def kl(channels: tuple[int, ...], layers: int, **options: Any) -> AutoencoderKL:
    down, up = (("DownEncoderBlock2D",) * len(channels), ("UpDecoderBlock2D",) * len(channels))
    arguments = dict(down_block_types=down, up_block_types=up, block_out_channels=channels)
    return AutoencoderKL(layers_per_block=layers, **arguments, **options)  # type: ignore[arg-type]


def test_the_autoencoder_of_stable_diffusion():
    check_autoencoder(KLShape(STABLE), 4, lambda: kl(STABLE, layers=2))
    assert flops.autoencoder_parameters(KLShape(STABLE)) == 83_653_863  # as released


def test_an_autoencoder_of_sixteen_latents_without_the_convolutions_around_them():
    """As that of Stable Diffusion 3."""
    plain = dict(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)
    shape = KLShape((8, 16, 24), layers=1, latents=16, quantised=False)
    check_autoencoder(shape, 16, lambda: kl(shape.channels, 1, norm_num_groups=4, **plain))


@pytest.mark.parametrize("name", VAES)
def test_autoencoders_trained_here(name: str):
    row = VAES[name]
    shape = KLShape(row["block_out_channels"], layers=1, attention=False)
    check_autoencoder(shape, row["latent_channels"], lambda: build_vae(name))


def test_tiny_autoencoders():
    check_autoencoder(TinyShape(), 4, lambda: AutoencoderTiny())
    narrow = TinyShape(8, (1, 2, 1), (2, 1, 1), 5)

    def build_narrow() -> AutoencoderTiny:
        return AutoencoderTiny(
            encoder_block_out_channels=(8,) * 3,
            decoder_block_out_channels=(8,) * 3,
            num_encoder_blocks=(1, 2, 1),
            num_decoder_blocks=(2, 1, 1),
            latent_channels=5,
        )

    check_autoencoder(narrow, 5, build_narrow)
    assert flops.autoencoder_parameters(TinyShape()) == 2_445_063  # as released (TAESD)
