"""A folder in diffusers' layout as a run: what the families of such folders share.

Our U-Nets are diffusers' own classes, so a folder's weights keep their names and values; what goes
with them are the VAE, the scheduler's settings, and the embedding of the empty prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import repeat
from torch import Tensor

from stepsight.coding import build_network
from stepsight.config import RunConfig
from stepsight.conversion.clip import empty_prompt
from stepsight.conversion.folders import (
    CONFIG,
    INDEX,
    PARTS,
    SCHEDULER,
    WRITTEN,
    Found,
    read_json,
    read_part,
    refuse_unknown,
)
from stepsight.conversion.foreign import compare
from stepsight.conversion.scheduler import read_scheduler
from stepsight.conversion.scheduler_table import CLASSES
from stepsight.conversion.write import Converted
from stepsight.data.config import ScenesSettings, SourceSettings
from stepsight.diffusion.config import DiffusionSettings, nfe
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.codec import open_codec
from stepsight.models.config import CUSTOM_UNET, UNET, CodecSettings, Memory, ModelSettings
from stepsight.models.factory import build
from stepsight.models.unet import FIXED, SWITCHED, TEXT, TextUNet, diffusers_config
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import TaskSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings

WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
)
WRITTEN_KEYS = ("family", "profile", "diffusion", "members", "memory", "size", "domain", "tasks")
# Of a U-Net's configuration: what its run decides, and what changes nothing in float32.
CHANNELS = 4  # that a U-Net's configuration means where it says none
OMITTED = ("in_channels", "out_channels", "sample_size", "upcast_attention")
# Of a U-Net that would have to be given more, or could not be.
UNGIVEN = {
    "num_class_embeds": None,
    "time_cond_proj_dim": None,
    "dual_cross_attention": False,
    "class_embeddings_concat": False,
}
# Parts of pipelines: those that are read, and those that no answer depends on.
PIPELINE = (
    *("unet", "vae", "scheduler", "text_encoder", "tokenizer", "image_encoder"),
    *("feature_extractor", "safety_checker"),
)

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """A diffusers folder whose parts are all there. `assumed` grows as it is read."""

    path: Path
    family: str
    index: Mapping[str, Any]  # model_index.json
    unet: Mapping[str, Any]  # unet/config.json
    assumed: list[str] = field(default_factory=list)
    written: Mapping[str, Any] = field(default_factory=dict)  # what an export said besides
    weights: Path | None = None  # the U-Net's folder, and
    schedule: Mapping[str, Any] | None = None  # scheduler_config.json, where they lie elsewhere

    @classmethod
    def of(cls, path: Path, found: Found) -> Self:
        """Raises UserError for a folder that lacks a part."""
        missing = [
            f"{part}/{file}" for part, file in PARTS.items() if not (path / part / file).exists()
        ]
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}. Copy the whole folder.")
        index, unet = read_json(path / INDEX), read_json(path / "unet" / CONFIG)
        written = read_json(path / WRITTEN) if (path / WRITTEN).is_file() else {}
        return cls(path, found.name, index, unet, [*found.assumed], written)

    def check(self, channels: int, *keys: str) -> None:
        """Refuse a U-Net of other input channels, and entries of model_index.json besides its parts
        that are none of `keys`."""
        found = self.unet.get("in_channels", CHANNELS)
        if found != channels:
            raise UserError(
                f"{self.path}: the U-Net of {self.family} has {channels} input channels, this one "
                f"{found}. It is of another family."
            )
        further = {key: value for key, value in self.index.items() if value != [None, None]}
        refuse_unknown(further, (*PIPELINE, *keys), self.path / INDEX)
        refuse_unknown(self.written, WRITTEN_KEYS, self.path / WRITTEN)

    def check_switch(self, numbers: int) -> None:
        """Refuse a U-Net that is not told what to answer by so many numbers."""
        keys = ("class_embed_type", "projection_class_embeddings_input_dim")
        told = tuple(self.unet.get(key) for key in keys)
        if told != (SWITCHED, numbers):
            raise UserError(
                f"{self.path}: {' and '.join(keys)} are {told}; this {self.family} is told by "
                f"'{SWITCHED}' of {numbers} numbers."
            )

    def entry(self, key: str, usual: int, least: int = 1) -> int:
        """A number in model_index.json; one that is missing is assumed."""
        value = self.index.get(key)
        if value is None:
            self.assumed.append(f"{INDEX} has no {key}: {usual}")
            return usual
        if type(value) is not int or value < least:
            raise UserError(
                f"{self.path / INDEX}: {key} is {value!r}; a whole number from {least} is needed."
            )
        return value

    def scheduler(self) -> DiffusionSettings:
        """What scheduler_config.json stands for."""
        # the class that diffusers takes
        named = [*(self.index.get("scheduler") or ()), None, None][1]
        kind = self.scheduler_file().get("_class_name")
        if named in CLASSES and kind in CLASSES and named != kind:
            raise UserError(
                f"{self.path}: {INDEX} names a {named}, {SCHEDULER} is of a {kind}. Make them one."
            )
        settings, assumed = read_scheduler(self.path / "scheduler" / SCHEDULER)
        self.assumed.extend(f"{SCHEDULER}: {sentence}" for sentence in assumed)
        return settings

    def scheduler_file(self) -> Mapping[str, Any]:
        """scheduler_config.json."""
        return self.schedule or read_json(self.path / "scheduler" / SCHEDULER)

    def run(
        self,
        tasks: Sequence[TaskSettings],
        diffusion: DiffusionSettings,
        profile: Profile,
        *,
        side: int = 0,
        members: int = 4,
        memory: Memory = "contiguous",
        data: SourceSettings | None = None,
        prompt: Tensor | None = None,
        switch: Tensor | None = None,
        beside: Mapping[str, Tensor] | None = None,
        weights: Callable[[Weights], Weights] = dict,
        more: Mapping[str, Any] | None = None,
    ) -> Converted:
        """The run that these weights could have come from.

        profile: as published, but `nfe` counts steps; their calls are the run's as well. side: the
        longer working side at 4:3 without it, in pixels; 0: the U-Net's own square. members:
        without the profile. memory: how the VAE lies in it when the publisher's code is given a
        picture. prompt: "r n d", that of every label row, or "1 n d"; None: that of the empty
        text. switch: likewise the numbers that tell the U-Net its task, "r s" or "1 s". beside:
        what else our network holds, by its names. weights: changes those of the U-Net's file
        before they are compared. more: of the U-Net's configuration.

        Raises UserError where weights and configuration do not fit.
        """
        prompt = empty_prompt(self.path) if prompt is None else prompt
        repeated = diffusion.sampler == "plms" and profile.nfe > 1  # its second visit
        profile = replace(profile, nfe=nfe(diffusion.sampler, profile.nfe) + repeated)
        published: Profile | None = profile
        if self.written:  # by an export, whose run may have seen and sampled in another way
            try:
                self._check_written(tasks)
                tasks = [replace(task, **self.written["tasks"][task.name]) for task in tasks]
                diffusion = replace(diffusion, **self.written["diffusion"])
                kept = self.written["profile"]
                published = None if kept is None else Profile.of(kept)
                memory, members = self.written["memory"], self.written["members"]
            except (KeyError, TypeError, UserError) as error:
                raise DataFormatError(f"{self.path / WRITTEN}: {error}") from None
        self._check_unet()
        data = data or ScenesSettings()
        vae = CodecSettings(str(self.path / "vae"), "float32", memory)
        codec = open_codec(vae)
        config = RunConfig(
            tasks={task.name: task for task in tasks},
            data={data.name: data},
            model=unet_settings({**self.unet, **(more or {})}, prompt.shape[1]),
            codec=vae,
            diffusion=diffusion,
            training=TrainingSettings(precision="float32"),  # as published
            evaluation=EvaluationSettings(
                nfe=profile.nfe, members=members, temperature=1.0, views="none"
            ),
        )
        with torch.device("meta"):
            net = build_network(config, build_tasks(config.tasks), codec)
        assert isinstance(net, TextUNet)
        answers = net.unet.config["out_channels"]
        if (said := self.unet.get("out_channels", CHANNELS)) != answers:
            raise UserError(f"{self._unet_file}: out_channels is {said!r}, not {answers}.")
        high, wide = self.written.get("size") or self._size(side, codec.downsample)
        return Converted(
            config,
            self._weights({"prompt": prompt, "switch": switch}, net, weights, beside or {}),
            {task.name: (high, wide) for task in tasks},
            codec,
            meta={
                "published": {
                    "index": self.index,
                    "scheduler": self.scheduler_file(),
                    "channels": self.unet.get("in_channels", CHANNELS),
                }
            },
            notes=[*notes_of(config), f"empty prompt: {tuple(prompt.shape)}"],
            family=self.family,
            profile=published,
            assumed=self.assumed,
        )

    def _check_written(self, tasks: Sequence[TaskSettings]) -> None:
        """Refuse what an export said of other tasks, and settings that these do not have."""
        known = {task.name: [one.name for one in fields(task)] for task in tasks}
        profile = self.written["profile"] or {}
        for settings in (self.written["tasks"], profile.get("tasks", {})):
            refuse_unknown(settings, known, "tasks")
            for task, values in settings.items():
                refuse_unknown(values, known[task], f"tasks.{task}")
        for key in ("resize_task", "resize_answer"):
            refuse_unknown(profile.get(key, {}), known, key)

    @property
    def _unet_file(self) -> Path:
        return (self.weights or self.path / "unet") / CONFIG

    def _check_unet(self) -> None:
        """Refuse a configuration that diffusers' class does not know, or of a network that is given
        more here than image, level, prompt and label."""
        where = self._unet_file
        refuse_unknown(self.unet, signature(UNet2DConditionModel.__init__).parameters, where)
        fixed = {"_class_name": TEXT, **FIXED, **UNGIVEN}
        del fixed["class_embed_type"]  # by which some families are told their task
        for key, value in fixed.items():
            if self.unet.get(key, value) != value:
                raise UserError(
                    f"{where}: {key} is {self.unet[key]!r}; only {value!r} is supported."
                )

    def _weights(
        self,
        labels: Mapping[str, Tensor | None],
        net: TextUNet,
        change: Callable[[Weights], Weights],
        beside: Mapping[str, Tensor],
    ) -> Weights:
        """The U-Net's weights and what stands for each label row, or one row of it for all, under
        the names of `net`."""
        part = read_part(self.weights or self.path / "unet", *WEIGHTS)
        ours = {f"unet.{name}": value for name, value in change(part.tensors).items()} | {**beside}
        for name, rows in labels.items():
            if rows is not None:
                count = len(net.prompt) if len(rows) == 1 else 1
                ours[name] = repeat(rows, "r ... -> (n r) ...", n=count).contiguous()
        shapes = {name: value.shape for name, value in net.state_dict().items()}
        compare(replace(part, tensors=ours), shapes)
        return ours

    def _size(self, side: int, downsample: int) -> tuple[int, int]:
        if side:
            return _multiple(side * 3 / 4, downsample), _multiple(side, downsample)
        square = _multiple((self.unet.get("sample_size") or 64) * downsample, downsample)
        return square, square


def without_target(weights: Weights) -> Weights:
    """Of a U-Net that sees a picture's latent alone: with zeros for what it would make of a noisy
    target, which ours starts from zero in turn."""
    name = "conv_in.weight"
    return {**weights, name: F.pad(weights[name], (0, 0, 0, 0, 0, CHANNELS))}


def notes_of(config: RunConfig) -> list[str]:
    """How it is sampled."""
    d = config.diffusion
    levels = f"{d.spacing} spacing, ends at {d.final}"
    if d.objective == "end_to_end":
        levels = "answers zeros in one step"
    return [f"diffusion: {d.schedule}, {d.prediction}-prediction, {levels}"]


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
