"""U-Nets as folders in diffusers' layout: in that which they came from, or as a Marigold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file

from stepsight import checkpoint
from stepsight.coding import build_network, saved_codec
from stepsight.conversion.clip import FILES, NAME, STORED
from stepsight.conversion.folders import CONFIG, INDEX, SCHEDULER, WRITTEN, read_json
from stepsight.conversion.prompting import CLASSES, write_prompting
from stepsight.conversion.scheduler import scheduler_config
from stepsight.conversion.vision import VISION, to_transformers
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.models.unet import TextUNet
from stepsight.models.vae import VAE
from stepsight.tasks.base import Task
from stepsight.tasks.config import DepthSettings, NormalsSettings
from stepsight.tasks.table import build_tasks

TEXT = "text_encoder", "tokenizer"  # which no run keeps
PUBLISHERS = "MarigoldPipeline"  # which Marigold's own repository has, and diffusers has not


def export_folder(saved: checkpoint.Checkpoint, out: Path) -> list[str]:
    """Write the averaged weights of a U-Net as the folder `out`: in the layout that they were
    imported from, else so that `diffusers.MarigoldDepthPipeline` or `MarigoldNormalsPipeline` opens
    it; returns notes.

    Raises UserError for a checkpoint that such a pipeline would read otherwise.
    """
    tasks = build_tasks(saved.config.tasks)
    codec = saved_codec(saved)
    with init_empty_weights():
        net = build_network(saved.config, tasks, codec)
    if not isinstance(net, TextUNet) or not isinstance(codec, VAE) or codec.shift:
        raise UserError(
            f"{saved.path}: Marigold is a text-conditioned U-Net on the latents of a VAE without "
            f"shift; this is {saved.config.model.name} on {codec.name}."
        )
    published = saved.meta.get("published", {})
    if net.onward or net.tempered or (net.further and "index" not in published):
        raise UserError(
            f"{saved.path}: no pipeline of diffusers runs its U-Net as it was trained. What was "
            f"imported from one file is exported with --format ldm."
        )
    index = published.get("index") or _index(saved, tasks)
    scheduler = published.get("scheduler") or scheduler_config(saved.config.diffusion)
    saved.load(net, checkpoint.BACKBONE)
    _without_target(net, published.get("channels"))
    net.unet.save_pretrained(out / "unet")
    codec.save(out / "vae")
    vae = read_json(out / "vae" / CONFIG)["_class_name"]
    _write_json(out / "scheduler" / SCHEDULER, scheduler)
    untold = [part for part in TEXT if part in index or "index" not in published]
    parts = {"vae": ["diffusers", vae]} | {part: [None, None] for part in untold}
    prompt, kind = net.prompt.detach()[:1].contiguous(), index["_class_name"]
    if unprompted := kind.startswith("Marigold") and kind != PUBLISHERS:
        write_prompting(prompt, out)
        parts |= CLASSES
    _write_json(out / INDEX, {**index, **parts})
    if encoder := getattr(net, "vision", None):
        save_file(to_transformers(encoder.net.state_dict()), _made(out / VISION) / FILES[0])
    for file, content in published.get("files", {}).items():
        _write_json(out / file, content)
    _write_json(out / WRITTEN, _written(saved, tasks))
    save_file({NAME: prompt}, out / STORED)
    lines = list(_usage(kind, [] if unprompted else untold, out, saved.config.diffusion))
    if measured := ", ".join(saved.meta.get("metric", {})):
        lines.append(f"the scale that {measured} got by stepsight calibrate has no place there")
    return lines


def export_marigold(saved: checkpoint.Checkpoint, out: Path) -> list[str]:
    """The same of what is a Marigold, or may be one. Raises UserError for another family's."""
    kind = saved.meta.get("published", {}).get("index", {}).get("_class_name", "")
    if kind and not kind.startswith("Marigold"):
        raise UserError(
            f"{saved.path} was published as a {kind}, which no Marigold answers as. Export it with "
            f"--format diffusers."
        )
    return export_folder(saved, out)


def _without_target(net: TextUNet, channels: int | None) -> None:
    """Of a U-Net that was published without a noisy target: without the zeros that read it here."""
    first = net.unet.conv_in
    if channels and channels > first.weight.shape[1]:
        raise UserError(
            f"this U-Net was published with {channels} input channels, of which "
            f"{first.weight.shape[1]} were imported: what reads the others is not there to export."
        )
    if channels and channels < first.weight.shape[1]:
        if first.weight[:, channels:].any():
            raise UserError(
                f"this U-Net was published with {channels} input channels, and has learned to read "
                f"a noisy target in the others. It has no place in that layout."
            )
        first.weight = torch.nn.Parameter(first.weight[:, :channels].clone())
        net.unet.register_to_config(in_channels=channels)


# Of diffusion settings, what no scheduler's file says.
UNTOLD = ("objective", "told", "multires_noise", "multires_annealed")


def _written(saved: checkpoint.Checkpoint, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """What the layout has no place for, and `convert import` would have to assume."""
    published = "published" in saved.meta
    return {
        "family": saved.meta["family"] if published else f"marigold-{next(iter(tasks))}",
        "profile": saved.meta.get("profile"),
        "diffusion": {name: getattr(saved.config.diffusion, name) for name in UNTOLD},
        "members": saved.config.evaluation.members,
        "memory": saved.config.codec.memory,
        "size": next(iter(saved.sizes.values())),
        "domain": saved.meta.get("published", {}).get("domain"),
        "tasks": {name: asdict(task) for name, task in saved.config.tasks.items()},
    }


def _index(saved: checkpoint.Checkpoint, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """model_index.json but for the class of the VAE."""
    (name, task), *others = tasks.items()
    if others:
        raise UserError(f"{saved.path} has tasks {', '.join(tasks)}; a Marigold has one.")
    return {
        **_meaning(saved, task),
        "_diffusers_version": diffusers.__version__,
        "default_denoising_steps": saved.config.evaluation.nfe,
        "default_processing_resolution": max(saved.sizes[name]),
        "prediction_type": name,
        "scheduler": ["diffusers", scheduler_config(saved.config.diffusion)["_class_name"]],
        "unet": ["diffusers", UNet2DConditionModel.__name__],
    }


def _meaning(saved: checkpoint.Checkpoint, task: Task) -> dict[str, Any]:
    """Which pipeline reads the task's target as we do, and the keys that say how."""
    if isinstance(task, DepthSettings) and (task.space, task.prompt) == ("linear", "none"):
        invariant = task.range == "quantile"
        keys = {"scale_invariant": invariant, "shift_invariant": invariant}
        return {"_class_name": "MarigoldDepthPipeline", **keys}
    if isinstance(task, NormalsSettings) and task.axes == "right_up_back":
        return {"_class_name": "MarigoldNormalsPipeline", "use_full_z_range": True}
    raise UserError(
        f"{saved.path}: its {task.name} cannot be exported to Marigold's pipelines. They read "
        f"depth in tasks.depth.space=linear without a prompt, and normals in "
        f"tasks.normals.axes=right_up_back."
    )


def _usage(
    pipeline: str, untold: Sequence[str], out: Path, diffusion: DiffusionSettings
) -> Iterator[str]:
    """How to open the folder, which lacks the parts `untold`."""
    if not pipeline.startswith("Marigold"):
        if untold:
            lacking = " and ".join(f"{part}/" for part in untold)
            yield f"to open {out} with {pipeline}, put its {lacking} beside"
        return
    if pipeline == PUBLISHERS:
        yield f"{out} is read by the code that it was published with"
        return
    yield f"pipe = {pipeline}.from_pretrained({str(out)!r})"
    if diffusion.objective == "end_to_end":
        yield "trained to answer zeros in one step: call it with latents=torch.zeros(...)"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    (_made(file.parent) / file.name).write_text(
        json.dumps(values, indent=2) + "\n", encoding="utf-8"
    )
