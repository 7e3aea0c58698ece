"""Closed forms against the counts published for DiT and measured on its code."""

from __future__ import annotations

import pytest

from stepsight.scaling.flops import (
    DiTShape,
    active_parameters,
    forward_flops,
    forward_macs,
    inference_flops,
    parameters,
    training_flops,
)

S, B, L, XL = (DiTShape(*size) for size in ((384, 12), (768, 12), (1024, 24), (1152, 28)))


@pytest.mark.parametrize(
    "shape, at_256, at_512, millions",
    [(S, 6.06, 31.4, 32.9), (B, 23.0, 106.4, 130.3), (L, 80.7, 361.0, 457.9)]
    + [(XL, 118.6, 524.6, 674.9)],
)
def test_dit_sizes(shape: DiTShape, at_256: float, at_512: float, millions: float):
    """Latents of 32x32 and 64x64 cells, 12 channels in, 8 out: printed to three or four digits."""
    assert forward_macs(shape, 32, 32) / 1e9 == pytest.approx(at_256, abs=0.05)
    assert forward_macs(shape, 64, 64) / 1e9 == pytest.approx(at_512, abs=0.05)
    assert parameters(shape) / 1e6 == pytest.approx(millions, abs=0.05)


def test_parameters_of_the_released_model():
    """DiT-XL/2 holds 675,129,632 numbers, of which 256 x 1152 are the fixed position table."""
    released = DiTShape(1152, 28, in_channels=4, out_channels=8)
    assert parameters(released) == 675_129_632 - 256 * 1152


def mixed(width: int, depth: int, **options) -> DiTShape:
    return DiTShape(width, depth, experts=8, active=2, **options)


def test_parameters_of_the_released_generalist():
    """DiT-XL/2, 8 experts, 12 channels in. Its code gives twice the input channels out, 1001 label
    rows and four patch embeddings, and counts the fixed table of 32 x 32 positions: 2,758,580,448.
    The file it published has 8 channels out and four more label rows."""
    d = 1152
    as_built = mixed(d, 28, in_channels=12, out_channels=24, labels=1001, routes=4)
    assert parameters(as_built) + 32 * 32 * d == 2_758_580_448
    as_published = mixed(d, 28, in_channels=12, out_channels=8, labels=1005, routes=4)
    final_linear = (d + 1) * 2 * 2  # a channel of the output
    assert parameters(as_published) == parameters(as_built) + 4 * d - (24 - 8) * final_linear
    assert parameters(as_published) + 32 * 32 * d == 2_758_511_264
    assert parameters(as_published) / 1e9 == pytest.approx(2.76, abs=5e-3)  # the paper's figures
    assert active_parameters(as_published) / 1e9 == pytest.approx(0.97, abs=5e-3)


@pytest.mark.parametrize(
    "width, depth, gmacs_at_256, gmacs_at_512, millions, active_millions",
    [(512, 16, 22.6, 103.2, 312, 111), (768, 20, 62.5, 273.9, 877, 310)]
    + [(1024, 24, 132.2, 567.2, 1868, 659), (1536, 28, 344.3, 1443.6, 4900, 1728)],
)
def test_upcycled_sizes(width, depth, gmacs_at_256, gmacs_at_512, millions, active_millions):
    """The ladder a2 to a5 with 8 experts, 2 active; the router is below 0.1 % of the MACs."""
    shape = mixed(width, depth)
    assert forward_macs(shape, 32, 32) / 1e9 == pytest.approx(gmacs_at_256, rel=3e-3)
    assert forward_macs(shape, 64, 64) / 1e9 == pytest.approx(gmacs_at_512, rel=3e-3)
    assert parameters(shape) / 1e6 == pytest.approx(millions, abs=0.6)
    assert active_parameters(shape) / 1e6 == pytest.approx(active_millions, abs=0.6)


def test_the_largest_dense_size():
    """a6 with 12 channels in and 8 out."""
    largest = DiTShape(1792, 32)
    assert parameters(largest) / 1e6 == pytest.approx(1862.6, abs=0.05)
    assert active_parameters(largest) == parameters(largest)


def test_what_experts_add():
    """A token passes active and shared MLPs of 8 d^2 MACs; each stored one has 8 d^2 + 5 d."""
    d, layers, tokens = S.width, S.depth, S.tokens(32, 32)
    shape = mixed(d, layers, shared=3, routes=4)
    extra = (2 + 3 - 1) * 8 * d**2 + 8 * d
    assert forward_macs(shape, 32, 32) - forward_macs(S, 32, 32) == tokens * layers * extra
    patch_embedding = 4 * 12 * d + d
    stored = layers * ((8 + 3 - 1) * (8 * d**2 + 5 * d) + 8 * d) + 3 * patch_embedding
    assert parameters(shape) - parameters(S) == stored
    idle = layers * (8 - 2) * (8 * d**2 + 5 * d) + 3 * patch_embedding
    assert parameters(shape) - active_parameters(shape) == idle


def test_published_gflops_are_macs(published):
    for row in published("dit_forward_gmacs.csv"):
        shape = DiTShape(int(row["width"]), int(row["layers"]), in_channels=4)
        cells = 2 * int(int(row["tokens"]) ** 0.5)
        macs = forward_macs(shape, cells, cells) / 1e9
        assert macs == pytest.approx(float(row["gmacs_formula"]), rel=1e-3)
        if row["published_gflops"]:
            assert macs == pytest.approx(float(row["published_gflops"]), rel=5e-3)


def test_a_mac_is_two_flops_and_training_three_forwards():
    forward = forward_flops(XL, 32, 32)
    assert forward == 2 * forward_macs(XL, 32, 32)
    assert training_flops(forward, 1000) == 3000 * forward
    assert inference_flops(forward, nfe=8, members=4) == 32 * forward


def test_attention_grows_with_the_square_of_the_tokens():
    """Everything else is at most linear, so second differences isolate it: 2 L d (2 T)^2 ..."""
    macs = [forward_macs(S, 32, 32 * n) for n in (1, 2, 3)]
    tokens = S.tokens(32, 32)
    assert macs[2] - 2 * macs[1] + macs[0] == 2 * 2 * S.depth * tokens**2 * S.width
