"""Published DiTs with random weights, and what they compute, written out plainly from their layout.

Nothing of `stepsight.models` is used here: attention, experts, positions and patches are spelled
out on the state dict, in float64 but for the sinusoid of the time, which is float32 as published.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
CONVOLUTIONS = {1000: 1, 1001: 2, 1002: 3, 1003: 4}  # label -> number of its input convolution


# ---------------------------------------------------------------------------- random weights


def dense(
    width: int = 64,
    depth: int = 3,
    patch: int = 2,
    side: int = 4,
    *,
    rows: int = 1001,
    outputs: int = 8,
    inputs: int = 4,
    experts: int = 0,
) -> State:
    """A class-conditional DiT; of more inputs: one that sees images."""
    shapes = common(width, depth, rows, outputs=patch**2 * outputs)
    shapes["x_embedder.proj.weight"] = (width, inputs, patch, patch)
    shapes["x_embedder.proj.bias"] = (width,)
    for i in range(depth):
        shapes |= mixture(i, width, experts) if experts else mlp(f"blocks.{i}.mlp", width)
    return filled(shapes, side, width)


def generalist(width: int = 64, depth: int = 3, side: int = 4, experts: int = 8) -> State:
    """A perception model of four input convolutions."""
    shapes = common(width, depth, rows=1005, outputs=32)
    for n in CONVOLUTIONS.values():
        name = f"x_embedder.proj.conv_in_{n}"
        shapes |= {f"{name}.weight": (width, 12, 2, 2), f"{name}.bias": (width,)}
    for i in range(depth):
        shapes |= mixture(i, width, experts)
    return filled(shapes, side, width)


def mixture(block: int, width: int, experts: int) -> Shapes:
    shapes: Shapes = {f"blocks.{block}.moe.gate.weight": (experts, width)}
    for e in range(experts):
        shapes |= mlp(f"blocks.{block}.moe.experts.{e}", width)
    return shapes


def common(width: int, depth: int, rows: int, outputs: int) -> Shapes:
    """Shapes of all but the input convolutions and the MLPs."""
    shapes: Shapes = {"y_embedder.embedding_table.weight": (rows, width)}
    shapes |= linear("t_embedder.mlp.0", 256, width) | linear("t_embedder.mlp.2", width, width)
    for i in range(depth):
        shapes |= linear(f"blocks.{i}.attn.qkv", width, 3 * width)
        shapes |= linear(f"blocks.{i}.attn.proj", width, width)
        shapes |= linear(f"blocks.{i}.adaLN_modulation.1", width, 6 * width)
    shapes |= linear("final_layer.adaLN_modulation.1", width, 2 * width)
    return shapes | linear("final_layer.linear", width, outputs)


def mlp(name: str, width: int) -> Shapes:
    return linear(f"{name}.fc1", width, 4 * width) | linear(f"{name}.fc2", 4 * width, width)


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def filled(shapes: Shapes, side: int, width: int) -> State:
    """Random values of a size that keeps activations near one, and the positions."""
    draw = torch.Generator().manual_seed(0)
    state = {"pos_embed": positions(side, width)}
    for name, shape in shapes.items():
        scale = 0.2 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
        state[name] = scale * torch.randn(shape, generator=draw)
    return state


def positions(side: int, width: int) -> Tensor:
    """ "1 n d" row by row: sines and cosines of the column, then of the row."""
    rows = []
    for y in range(side):
        for x in range(side):
            place: list[float] = []
            for coordinate in (x, y):
                angles = [coordinate / 10000 ** (4 * j / width) for j in range(width // 4)]
                place += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(place)
    return torch.tensor(rows, dtype=torch.float64).float()[None]


# ---------------------------------------------------------------------------- what they compute


def forward(state: State, x: Tensor, step: float, label: int, heads: int) -> Tensor:
    """One image "c h w" in the published channel order -> "8 h w", or "4 h w" without sigma."""
    s = {name: value.double() for name, value in state.items()}
    h = patches(s, x.double(), label) + s["pos_embed"][0]
    c = time_embedding(s, step) + s["y_embedder.embedding_table.weight"][label]
    depth = sum(name.endswith(".attn.qkv.bias") for name in s)
    for i in range(depth):
        h = block(s, f"blocks.{i}", h, c, heads)
    shift, scale = affine(s, "final_layer.adaLN_modulation.1", silu(c)).chunk(2)
    tokens = affine(s, "final_layer.linear", norm(h) * (1 + scale) + shift)
    return image(tokens, kernel_side(s), x.shape[1], x.shape[2]).float()


def patches(s: State, x: Tensor, label: int) -> Tensor:
    """Tokens "n d", row by row, by the input convolution of the label."""
    name = "x_embedder.proj"
    if f"{name}.weight" not in s:
        name = f"{name}.conv_in_{CONVOLUTIONS[label]}"
    kernel, bias = s[f"{name}.weight"], s[f"{name}.bias"]
    p = kernel.shape[-1]
    cells = [
        x[:, i : i + p, j : j + p] for i in range(0, x.shape[1], p) for j in range(0, x.shape[2], p)
    ]
    return torch.stack([(kernel * cell).sum(dim=(1, 2, 3)) + bias for cell in cells])


def kernel_side(s: State) -> int:
    kernels = (value for name, value in s.items() if name.startswith("x_embedder"))
    return next(value.shape[-1] for value in kernels if value.ndim == 4)


def image(tokens: Tensor, p: int, height: int, width: int) -> Tensor:
    """Tokens of (row in patch, column in patch, channel) to "c h w"."""
    channels = tokens.shape[1] // p**2
    out = tokens.new_zeros(channels, height, width)
    for n, token in enumerate(tokens.reshape(-1, p, p, channels)):
        i, j = n // (width // p) * p, n % (width // p) * p
        out[:, i : i + p, j : j + p] = token.permute(2, 0, 1)
    return out


def time_embedding(s: State, step: float) -> Tensor:
    angles = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128) * step
    wave = torch.cat([angles.cos(), angles.sin()]).double()
    return affine(s, "t_embedder.mlp.2", silu(affine(s, "t_embedder.mlp.0", wave)))


def block(s: State, name: str, h: Tensor, c: Tensor, heads: int) -> Tensor:
    six = affine(s, f"{name}.adaLN_modulation.1", silu(c)).chunk(6)
    shift1, scale1, gate1, shift2, scale2, gate2 = six
    h = h + gate1 * attention(s, f"{name}.attn", norm(h) * (1 + scale1) + shift1, heads)
    y = norm(h) * (1 + scale2) + shift2
    mixed = f"{name}.moe.gate.weight" in s
    return h + gate2 * (experts(s, f"{name}.moe", y) if mixed else feed(s, f"{name}.mlp", y))


def attention(s: State, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = affine(s, f"{name}.qkv", x).chunk(3, dim=1)
    width = q.shape[1] // heads
    answers = []
    for part in (slice(n * width, (n + 1) * width) for n in range(heads)):
        share = (q[:, part] @ k[:, part].T / math.sqrt(width)).softmax(dim=1)
        answers.append(share @ v[:, part])
    return affine(s, f"{name}.proj", torch.cat(answers, dim=1))


def experts(s: State, name: str, x: Tensor) -> Tensor:
    """Token by token: the two likeliest experts, weighted by their softmax over all."""
    answers = []
    for token in x:
        chance = (s[f"{name}.gate.weight"] @ token).softmax(dim=0)
        best = chance.argsort(descending=True)[:2].tolist()
        parts = [chance[e] * feed(s, f"{name}.experts.{e}", token) for e in best]
        answers.append(parts[0] + parts[1])
    return torch.stack(answers)


def feed(s: State, name: str, x: Tensor) -> Tensor:
    y = affine(s, f"{name}.fc1", x)
    y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return affine(s, f"{name}.fc2", y)


def affine(s: State, name: str, x: Tensor) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def norm(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def difference(found: Tensor, wanted: Tensor) -> float:
    """Relative."""
    return float((found - wanted).norm() / wanted.norm())


# ---------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def published() -> SimpleNamespace:
    """The published layouts: `dense` and `generalist` state dicts, their `forward`, and the
    relative `difference` of two answers."""
    return SimpleNamespace(
        dense=dense,
        generalist=generalist,
        forward=forward,
        difference=difference,
    )


@pytest.fixture(scope="session")
def vae(tmp_path_factory) -> Path:
    """A folder with an untrained VAE of 4 latent channels and 4 pixels a cell."""
    from stepsight.models.config import CodecSettings
    from stepsight.models.vae import VAE, build_vae

    folder = tmp_path_factory.mktemp("codecs") / "vae"
    torch.manual_seed(0)
    VAE(build_vae("vae-tiny"), CodecSettings()).save(folder)
    return folder


@pytest.fixture
def convert(tmp_path) -> Callable[..., Path]:
    """`stepsight convert import` of a state dict or a file into a folder, which is returned."""
    from stepsight.cli.main import main

    def run(weights: State | Path, *flags: object, out: str = "imported") -> Path:
        source = weights
        if isinstance(weights, dict):
            source = tmp_path / "weights.pt"
            torch.save(weights, source)
        folder = tmp_path / out
        arguments = ["convert", "import", source, "--out", folder, *flags]
        assert main([str(one) for one in arguments]) == 0
        return folder

    return run
