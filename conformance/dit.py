"""DiT with and without sigma, and the paper's single-task experts, beside their authors' code."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from conformance.rows import Differences, arrays, relative, row
from stepsight import checkpoint
from stepsight.coding import Layout
from stepsight.conversion.dit import LABELS, VAE, Wishes, export_dit, import_dit
from stepsight.conversion.foreign import Weights, read_tensors
from stepsight.conversion.generalist import import_single
from stepsight.conversion.write import Converted, write
from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.guidance import guided
from stepsight.diffusion.objective import Diffusion
from stepsight.tasks.table import build_tasks
from stepsight.types import ModelInputs

DIT = "facebookresearch/DiT ed81ce2, stored answers"
KINDS = {"sigma": "DiT-Ti-2-64x64.pt", "nosigma": "DiT-Ti-2-64x64-nosigma.pt"}
EXPERT = "DiT_a_4_0080000.pt"
CLASSES = 10  # the null row comes after them


def network(imported: Converted) -> Any:
    layout = Layout.of(build_tasks(imported.config.tasks), VAE)
    net = layout.build(imported.config.model).eval().requires_grad_(False)
    net.load_state_dict(imported.weights)
    return net


@cache
def opened(folder: Path, kind: str) -> tuple[Any, DiffusionSettings]:
    """The imported network, and how it is sampled by default."""
    imported = import_dit(read_tensors(folder / "checkpoint" / KINDS[kind]), Wishes())
    return network(imported), imported.config.diffusion


def stored(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")


@row("network", "DiT, with and without sigma", oracle=DIT, bar=1e-5, golden="dit")
def forward(folder: Path) -> Differences:
    """The answers at several levels and classes, the null class among them."""
    given, theirs = stored(folder)
    found = {}
    for kind in KINDS:
        x, t, y = (given[f"{kind}_{name}"] for name in "xty")
        ours = opened(folder, kind)[0](x, x[:, :0], t.float(), y)
        found[kind] = relative(ours, theirs[f"{kind}_forward"])
    return found


def label_asked(net: Any, label: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return net(x, x[:, :0], t, label)


@row("network", "DiT, guided", oracle=DIT, bar=1e-5, golden="dit")
def guidance(folder: Path) -> Differences:
    """The guided answers with what they say of the variance: three of four channels are guided."""
    given, theirs = stored(folder)
    found = {}
    for kind in KINDS:
        net, settings = opened(folder, kind)
        x, t, y = (given[f"{kind}_cfg_{name}"][:2] for name in "xty")
        null = torch.full_like(y, CLASSES)
        asked = [partial(label_asked, net, label) for label in (y, null)]
        for scale in (1.0, 1.5, 4.0):
            ours = guided(asked[0], asked[1], scale, settings.guided_channels)(x, t.float())
            found[f"{kind} {scale}"] = relative(ours, theirs[f"{kind}_cfg_{scale}"][:2])
    return found


def walked(folder: Path, what: str, **changes: Any) -> Differences:
    """The state after every step of p_sample_loop or ddim_sample_loop, and the levels visited."""
    given, theirs = stored(folder)
    found = {}
    for name, states in theirs.items():
        kind, _, rest = name.partition(f"_{what}_")
        if not rest:
            continue
        steps, _, scale = rest.partition("_cfg")
        net, settings = opened(folder, kind)
        diffusion = Diffusion(replace(settings, guidance=float(scale), **changes))
        levels = (diffusion.times(int(steps))[:-1] * 1000 - 1).round().long()
        assert levels.tolist() == theirs[f"{kind}_timesteps_{steps}"].tolist()
        ours = states_of(
            diffusion, net, given[f"{kind}_noise"], given[f"{kind}_{steps}_step_noise"]
        )
        each = [relative(a, b) for a, b in zip(ours, states[:, :2], strict=True)]
        found[f"{kind} {steps} steps, guidance {scale}"] = max(each)
    return found


def states_of(diffusion: Diffusion, net: Any, start: Tensor, draws: Tensor) -> list[Tensor]:
    """The states after every step, for classes 3 and 7."""
    label = torch.tensor([3, 7])
    coded = ModelInputs(None, start[:, :0], None, None, label, null=torch.full((2,), CLASSES))
    denoise, states = diffusion.denoiser(net, coded), []

    def noted(x: Tensor, t: Tensor) -> Tensor:
        states.append(x)
        return denoise(x, t)

    def noise(draw: int) -> Tensor:
        return draws[draw - 1][:2] if draw else start

    last = diffusion.sample(noted, noise, len(draws))
    return [*states[1:], last]


@row("sampler", "DiT's p_sample_loop", oracle=DIT, bar=1e-5, golden="dit")
def ancestral(folder: Path) -> Differences:
    """The state after every step, by the learned variance and the forward step's, guided by 4 and
    not."""
    return walked(folder, "ancestral")


@row("sampler", "DiT's ddim_sample_loop", oracle=DIT, bar=1e-5, golden="dit")
def ddim(folder: Path) -> Differences:
    """The state after every step, without noise, guided by 4 and not."""
    return walked(folder, "ddim", sampler="ddim")


@row(
    "importer",
    "single-task expert",
    oracle="scaling-diffusion-perception cb9f2c7, stored answers",
    bar=1e-5,
    golden="scaling-perception-expert",
)
def expert(folder: Path) -> Differences:
    """The answers to image and noisy latent at several levels, and under the null row, in float32
    and in float64, whose frequencies are float32's: their last digits are the processor's own."""
    given, theirs = stored(folder)
    imported = import_single(read_tensors(folder / "checkpoint" / EXPERT), Wishes(task="depth"))
    net, (image, noisy) = network(imported), given["forward_x"].chunk(2, dim=1)
    label = (given["forward_y"] > 0).long()
    plain = net(noisy, image, given["forward_t"], label)
    wide = net.double()(noisy.double(), image.double(), given["forward_t"], label)
    exact = relative(wide, theirs["forward_float64"])
    return {"float32": relative(plain, theirs["forward"]), "float64": exact}


def exported(weights: Weights, imported: Converted) -> Differences:
    """What is exported again, tensor by tensor, but for labels that were not imported."""
    with tempfile.TemporaryDirectory() as name:
        write(imported, Path(name) / "run")
        export_dit(checkpoint.read(Path(name) / "run"), Path(name) / "out")
        ours = load_file(Path(name) / "out" / "model.safetensors")
    assert ours.keys() == weights.tensors.keys()
    kept = {LABELS: [0, -1]} if len(ours[LABELS]) < len(weights.tensors[LABELS]) else {}
    theirs = {n: x.float()[kept.get(n, slice(None))] for n, x in weights.tensors.items()}
    return {weights.source.name: max(relative(ours[name], theirs[name]) for name in ours)}


@row("exporter", "DiT, with and without sigma", oracle=DIT, bar=1e-6, golden="dit")
def dit_again(folder: Path) -> Differences:
    """The file's own tensors, imported and exported again: equal bits but for the positions, which
    are computed."""
    files = [read_tensors(folder / "checkpoint" / name) for name in KINDS.values()]
    found = [exported(file, import_dit(file, Wishes())) for file in files]
    return {**found[0], **found[1]}


@row(
    "exporter",
    "single-task expert",
    oracle="scaling-diffusion-perception cb9f2c7, stored answers",
    bar=1e-6,
    golden="scaling-perception-expert",
)
def expert_again(folder: Path) -> Differences:
    """The file's own tensors, imported and exported again; of the labels, the task's and none."""
    file = read_tensors(folder / "checkpoint" / EXPERT)
    return exported(file, import_single(file, Wishes(task="depth")))
