"""What bf16 and fp16 change in the answers of every family, and what they take in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from conformance.rows import Differences, arrays, row
from stepsight.conversion.dit import Wishes
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.execution.config import Precision
from stepsight.models.vae import VAE
from stepsight.pipeline.dense import DensePipeline

# folder of stored answers -> the file or folder in its checkpoint/, wishes, task
FAMILIES: dict[str, tuple[str, Wishes, str]] = {
    "marigold-depth-v1-0": ("", Wishes(), "depth"),
    "marigold-depth-v1-1": ("", Wishes(), "depth"),
    "marigold-depth-lcm-v1-0": ("", Wishes(), "depth"),
    "marigold-normals-v1-1": ("", Wishes(), "normals"),
    "marigold-iid-appearance-v1-1": ("", Wishes(), "albedo"),
    "marigold-iid-lighting-v1-1": ("", Wishes(), "shading"),
    "e2e-ft-depth": ("", Wishes(family="e2e-ft-depth"), "depth"),
    "e2e-ft-normals": ("", Wishes(family="e2e-ft-normals"), "normals"),
    "lotus-depth-g": ("", Wishes(), "depth"),
    "lotus-depth-d": ("", Wishes(), "depth"),
    "lotus-normal-g": ("", Wishes(), "normals"),
    "genpercept": ("", Wishes(family="genpercept-depth"), "depth"),
    "geowizard": ("", Wishes(), "depth"),
    "geowizard-v2": ("", Wishes(), "normals"),
    "depthfm": ("depthfm-v1.ckpt", Wishes(), "depth"),
    "pix2gestalt": ("epoch=000005.ckpt", Wishes(), "amodal"),
    "scaling-perception-generalist": ("dit_moe_generalist.pt", Wishes(), "depth"),
}
SIDE = 64  # pixels, where a profile brings the longer side to some
BAR: dict[Precision, float] = {"bf16": 0.1, "fp16": 0.02}


def _weights(pipeline: DensePipeline) -> int:
    """Bytes of network and codec."""
    assert isinstance(pipeline.codec, VAE)
    modules: list[nn.Module] = [pipeline.net, pipeline.codec._module]
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())


def _measured(folder: Path, source: str, wishes: Wishes, task: str) -> Differences:
    given = arrays(folder / "inputs.npz")
    image = next(value for name, value in given.items() if "image" in name)
    mask = (given["a_mask"] > 0).numpy() if task == "amodal" else None
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        write(import_published(folder / "checkpoint" / source, wishes), Path(name, "run"))
        answers, sizes = {}, {}
        every: list[Precision] = ["float32", *BAR]
        for precision in every:
            pipeline = DensePipeline.from_pretrained(Path(name, "run"), "cpu", precision=precision)
            small = pipeline.profile.fit.startswith("longest")
            pipeline = pipeline.at(SIDE) if small else pipeline
            calls = min(2, pipeline.default_setting(task).nfe)
            answer = pipeline(image.numpy(), task, mask=mask, nfe=calls, members=1)
            answers[precision] = answer.x.float()
            sizes[precision] = _weights(pipeline)
    scale = answers["float32"].std().clamp_min(1e-6)
    for precision, bar in BAR.items():
        apart = (answers[precision] - answers["float32"]).abs().mean() / scale
        found[f"{precision}, of {bar:g}"] = float(apart) / bar
        found[precision] = float(apart)
        found[f"{precision} memory"] = sizes[precision] / sizes["float32"]
    return found


def _register(golden: str, source: str, wishes: Wishes, task: str) -> None:
    def measure(folder: Path) -> Differences:
        return _measured(folder, source, wishes, task)

    measure.__doc__ = f"Mean difference of {task} over its deviation; memory of all weights."
    add: Callable[..., Differences] = measure
    row("precision", golden, oracle="its own float32", bar=1.0, golden=golden)(add)


for _golden, _how in FAMILIES.items():
    _register(_golden, *_how)
