"""Closed forms against the counts published for DiT and measured on its code."""

from __future__ import annotations

import pytest

from stepsight.scaling.flops import (
    DiTShape,
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
