"""Marigold (Ke et al. 2024) and Stable Diffusion in diffusers' layout, in and out.

Marigold is a U-Net that denoises the latent of a depth or normal map next to that of the image. Our
U-Nets are diffusers' own classes, so a folder's weights keep their names and values; what goes with
them are the VAE, the scheduler's settings, and the embedding of the empty prompt.

Stable Diffusion becomes a generator of one class, with its weights as they are. Trained for other
tasks (`--init-from`), its input convolution is widened for condition images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import repeat
from safetensors.torch import save_file
from torch import Tensor

from stepsight import checkpoint
from stepsight.coding import build_network, saved_codec
from stepsight.config import RunConfig
from stepsight.conversion.clip import NAME, STORED, empty_prompt
from stepsight.conversion.folders import CONFIG, GENERATOR, INDEX, find_folder, read_json, read_part
from stepsight.conversion.foreign import compare
from stepsight.conversion.scheduler import read_settings, scheduler_config
from stepsight.conversion.write import Converted
from stepsight.data.config import ScenesSettings
from stepsight.data.readers.config import ImageFolderSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.codec import open_codec
from stepsight.models.config import CUSTOM_UNET, UNET, CodecSettings, ModelSettings
from stepsight.models.factory import build
from stepsight.models.unet import TextUNet, diffusers_config
from stepsight.models.vae import VAE
from stepsight.tasks.base import Task
from stepsight.tasks.config import DepthSettings, ImageSettings, NormalsSettings, TaskSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings

WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
)
# Of a U-Net's configuration: what its run decides, and what changes nothing in float32.
OMITTED = ("in_channels", "out_channels", "sample_size", "upcast_attention")
TASKS: dict[str, TaskSettings] = {
    "marigold-depth": DepthSettings(space="linear"),
    "marigold-normals": NormalsSettings(axes="right_up_back"),
    GENERATOR: ImageSettings(classes=1),
}
STEPS = {GENERATOR: 50}  # of diffusers' pipeline; Marigold v1.0 advises 10
MULTIRES = 0.9  # strength of Marigold's annealed multi-resolution noise in training


def import_folder(path: Path, out_name: str) -> Converted:
    """The pipeline in `path` as a run called `out_name`: one task, or a generator of one class.

    Raises UserError for a folder that is incomplete, of another architecture, or that asks for what
    is not supported. Weights are compared by name and shape.
    """
    kind = find_folder(path)
    if kind is None:
        raise UserError(f"{path} has no {INDEX}: it is no diffusers folder.")
    source = Source(path, kind, read_json(path / INDEX), read_json(path / "unet" / CONFIG))
    source.check()
    prompt = empty_prompt(path)
    codec = open_codec(CodecSettings(str(path / "vae"), "float32"))
    config = source.config(tokens=prompt.shape[1])
    with torch.device("meta"):
        net = build_network(config, build_tasks(config.tasks), codec)
    assert isinstance(net, TextUNet)
    return Converted(
        config,
        source.weights(prompt, net),
        {source.task.name: source.size(codec.downsample, net.stride)},
        codec,
        meta={"run": out_name},
        notes=[*source.notes(config), f"empty prompt: {tuple(prompt.shape)}"],
    )


@dataclass(frozen=True)
class Source:
    """A diffusers folder whose parts are all there."""

    path: Path
    kind: str
    index: Mapping[str, Any]  # model_index.json
    unet: Mapping[str, Any]  # unet/config.json

    @property
    def task(self) -> TaskSettings:
        return TASKS[self.kind]

    def check(self) -> None:
        """Refuse Marigold models whose answer means something else."""
        means = self.index.get("prediction_type") or self.task.name  # older folders do not say
        if self.kind != GENERATOR and means != self.task.name:
            raise UserError(f"{self.path}: predicts {means}; {self.task.name} is supported.")
        if self.index.get("use_full_z_range") is False:
            raise UserError(
                f"{self.path}: its normals fold z into [0, 1] (use_full_z_range false); only "
                f"models of the full range are supported."
            )

    def config(self, tokens: int) -> RunConfig:
        """The run that these weights could have come from."""
        generator = self.kind == GENERATOR
        source = ImageFolderSettings() if generator else ScenesSettings()
        diffusion = read_settings(self.path / "scheduler" / "scheduler_config.json")
        if not generator:
            diffusion = replace(diffusion, multires_noise=MULTIRES, multires_annealed=True)
        return RunConfig(
            tasks={self.task.name: self.task},
            data={source.name: source},
            model=unet_settings(self.unet, tokens),
            codec=CodecSettings(str(self.path / "vae"), "float32"),
            diffusion=diffusion,
            training=TrainingSettings(precision="float32"),  # as published
            evaluation=EvaluationSettings(nfe=self.steps, members=4, temperature=1.0, views="none"),
        )

    @property
    def steps(self) -> int:
        return self.index.get("default_denoising_steps") or STEPS.get(self.kind, 10)

    def weights(self, prompt: Tensor, net: TextUNet) -> dict[str, Tensor]:
        """The U-Net's weights and the prompt of every label row, under the names of `net`."""
        part = read_part(self.path / "unet", *WEIGHTS)
        ours = {f"unet.{name}": value for name, value in part.tensors.items()}
        ours["prompt"] = repeat(prompt, "1 n d -> r n d", r=len(net.prompt)).contiguous()
        shapes = {name: value.shape for name, value in net.state_dict().items()}
        compare(replace(part, tensors=ours), shapes)
        return ours

    def size(self, downsample: int, stride: int) -> tuple[int, int]:
        """Working height and width: Marigold's longer side in a 4:3 frame, else the U-Net's own
        square; multiples of what the VAE and the U-Net divide by."""
        cell = downsample * stride
        longer = self.index.get("default_processing_resolution")
        if longer:
            return _multiple(longer * 3 / 4, cell), _multiple(longer, cell)
        side = _multiple((self.unet.get("sample_size") or 64) * downsample, cell)
        return side, side

    def notes(self, config: RunConfig) -> Iterator[str]:
        """What was taken over, what was assumed, and what differs."""
        d = config.diffusion
        levels = f"{d.spacing} spacing, ends at {d.final}"
        yield f"diffusion: {d.schedule}, {d.prediction}-prediction, {levels}"
        if self.kind == GENERATOR:
            yield "one class, under the empty prompt; to fine-tune, name this run with --init-from"
            yield f"{self.steps} steps"
            return
        known = "default_denoising_steps" in self.index
        yield f"{self.steps} steps ({'default_denoising_steps' if known else 'assumed'})"
        yield "working size: its area is kept, with each image's own aspect ratio"
        for key in ("scale_invariant", "shift_invariant"):
            if self.index.get(key) is False:
                yield f"{key} is false, but members are aligned by scale and shift all the same"


def unet_settings(config: Mapping[str, Any], tokens: int) -> ModelSettings:
    """The row of the size table that is the U-Net of a diffusers `config` under a prompt of
    `tokens`; else a "unet" with that configuration."""
    whole = json.dumps({**config, "tokens": tokens})
    described = _described(ModelSettings(CUSTOM_UNET, unet=whole))
    for name, size in UNET.items():
        alike = size.text and list(size.channels) == described["block_out_channels"]
        if alike and _described(ModelSettings(name)) == described:
            return ModelSettings(name)
    return ModelSettings(CUSTOM_UNET, unet=json.dumps(described))


def _described(settings: ModelSettings) -> dict[str, Any]:
    """A U-Net's full configuration, as far as it is its own."""
    with torch.device("meta"):
        net = build(settings, target_channels=4, cond_channels=4, labels=1)
    assert isinstance(net, TextUNet)
    return {key: value for key, value in diffusers_config(net).items() if key not in OMITTED}


def _multiple(side: float, stride: int) -> int:
    return max(1, round(side / stride)) * stride


def export_marigold(saved: checkpoint.Checkpoint, out: Path) -> list[str]:
    """Write the averaged weights of a U-Net for depth or normals as the folder `out`, which
    `diffusers.MarigoldDepthPipeline` or `MarigoldNormalsPipeline` opens; returns notes.

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
    index = _index(saved, tasks)
    scheduler = scheduler_config(saved.config.diffusion)
    saved.load(net, checkpoint.BACKBONE)
    net.unet.save_pretrained(out / "unet")
    codec.save(out / "vae")
    vae = read_json(out / "vae" / CONFIG)["_class_name"]
    _write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(out / INDEX, {**index, "vae": ["diffusers", vae]})
    save_file({NAME: net.prompt.detach()[:1].contiguous()}, out / STORED)
    return list(_usage(index["_class_name"], out, saved.config.diffusion))


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
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
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
        f"{saved.path}: {task} cannot be exported to Marigold's pipelines. They read depth in "
        f"tasks.depth.space=linear without a prompt, and tasks.normals.axes=right_up_back."
    )


def _usage(pipeline: str, out: Path, diffusion: DiffusionSettings) -> Iterator[str]:
    """How to open the folder, which has no text encoder."""
    yield f"pipe = {pipeline}.from_pretrained({str(out)!r}, text_encoder=None, tokenizer=None)"
    yield (
        f"pipe.empty_text_embedding = safetensors.torch.load_file({str(out / STORED)!r})[{NAME!r}]"
    )
    if diffusion.objective == "end_to_end":
        yield "trained to answer zeros in one step: call it with latents=torch.zeros(...)"


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
