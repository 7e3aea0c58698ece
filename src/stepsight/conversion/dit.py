"""DiT checkpoints (Peebles & Xie 2023, facebookresearch/DiT) in and out.

Our DiT has their parameter names. What differs: they store the fixed positions, we compute them;
they have a name per expert, we stack these; and a model with condition images has them before the
noisy target in the channels of its input, where ours come after it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.checkpoint import BACKBONE, CODEC, Checkpoint
from stepsight.coding import Layout
from stepsight.config import RunConfig
from stepsight.conversion.adapt import layout_of
from stepsight.conversion.foreign import Weights, compare
from stepsight.conversion.scheduler import read_scheduler, read_settings
from stepsight.conversion.write import Converted
from stepsight.data.readers.config import ImageFolderSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.codec import Codec, Described, described_codec, open_codec
from stepsight.models.config import DIT, CodecSettings, DiTSize, ModelSettings, parse
from stepsight.models.layers import position_table
from stepsight.tasks.config import ImageSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings

POSITIONS = "pos_embed"
KERNEL = "x_embedder.proj.weight"
LABELS = "y_embedder.embedding_table.weight"
OUTPUT = "final_layer.linear.weight"
GATE = "blocks.0.moe.gate.weight"
EXPERT = re.compile(r"(blocks\.\d+\.moe\.experts)\.(\d+)\.(fc[12]\.(?:weight|bias))")
ACTIVE = 2  # experts per token: no shape says it
TOLERANCE = 1e-5  # of stored positions: they were rounded to float32
VAE = Described("Stable Diffusion's VAE", downsample=8, latents=4)
UNKNOWN_VAE = "vae"  # codec.path when no folder was given

# How DiT is trained and sampled: linear betas, and 250 draws at levels spread evenly from 999 to 0,
# by the learned variance or, without one, by that of the forward step; sample.py guides by 4, and
# the model's own forward_with_cfg touches three of the four latent channels.
DIFFUSION = DiffusionSettings(
    schedule="linear",
    prediction="eps",
    shift=1.0,
    sampler="ancestral_learned",
    spacing="respaced",
    sampling_shift=1.0,
    guidance=4.0,
    guided_channels=3,
)


@dataclass(frozen=True)
class Wishes:
    """What a user may say about weights that are imported."""

    vae: Path | None = None  # folder of the VAE they were trained with
    size: tuple[int, int] | None = None  # working height and width; None: as trained
    scheduler: Path | None = None  # a scheduler_config.json, in the place of what is assumed
    family: str | None = None  # of those that a folder could be of (`conversion.families`)
    domain: str | None = None  # of the pictures: indoor, outdoor or object
    task: str | None = None  # of a single-task model, whose file does not say it

    @property
    def codec_settings(self) -> CodecSettings:
        return CodecSettings(str(self.vae or UNKNOWN_VAE), "float32")

    def codec(self) -> Codec | None:
        """The VAE, if one is named. Raises UserError if it has other latents than DiTs take."""
        if self.vae is None:
            return None
        codec = open_codec(self.codec_settings)
        if codec.channels(3) != VAE.latents:
            raise UserError(
                f"--vae {self.vae}: {codec.channels(3)} latent channels, but these weights take "
                f"{VAE.latents}. Give Stable Diffusion's VAE."
            )
        return codec

    def diffusion(self, assumed: DiffusionSettings) -> DiffusionSettings:
        """What the scheduler's file says, but for guidance, of which it says nothing."""
        if self.scheduler is None:
            return assumed
        guidance = {"guidance": assumed.guidance, "guided_channels": assumed.guided_channels}
        return replace(read_settings(self.scheduler), **guidance)

    def notes(self, diffusion: DiffusionSettings) -> Iterator[str]:
        """What was taken for granted, and what is `missing`."""
        origin = f"from {self.scheduler}" if self.scheduler else "assumed, no --scheduler given"
        yield (
            f"diffusion ({origin}): {diffusion.schedule}, {diffusion.prediction}-prediction, "
            f"{diffusion.sampler}, {diffusion.spacing}"
        )
        yield from self.missing()

    def missing(self) -> Iterator[str]:
        """What is still to be done."""
        if self.vae is None:
            yield (
                "no VAE: put Stable Diffusion's VAE folder at <out>/codec, or import again with "
                "--vae FOLDER"
            )


@dataclass(frozen=True)
class Trained:
    """What the shapes of a published DiT say: its dense size, and its square grid of tokens."""

    name: str
    patch: int
    side: int  # tokens along each axis
    experts: int  # 0: dense
    variance: bool  # whether it answers one ("sigma")

    @classmethod
    def of(cls, weights: Weights, kernel: str) -> Trained:
        """`kernel` names the weight of an input convolution "width i p p".

        Raises UserError for a size that is not in the table, or for other positions than fixed
        sines and cosines.
        """
        width, _, patch, _ = shape_of(weights, kernel, 4)
        blocks = [name.split(".")[1] for name in weights.tensors if name.startswith("blocks.")]
        depth = 1 + max(int(number) for number in blocks if number.isdigit())
        outputs = shape_of(weights, OUTPUT, 2)[0]
        experts = shape_of(weights, GATE, 2)[0] if GATE in weights.tensors else 0
        name = _size_name(width, depth, patch, weights)
        variance = outputs == 2 * VAE.latents * patch**2
        return cls(name, patch, _side(weights, width), experts, variance)

    def sized(self, wishes: Wishes, codec: Codec | None) -> tuple[int, int]:
        """The working height and width in pixels. Raises UserError for a size that does not fit."""
        cell = self.patch * (codec or VAE).downsample
        for side in wishes.size or ():
            if side < 1 or side % cell:
                raise UserError(
                    f"--size: {side} is not a multiple of {cell}, the pixels per token."
                )
        return wishes.size or (self.side * cell, self.side * cell)

    def model(self, **options: Any) -> ModelSettings:
        """The backbone as it was trained; pictures of other shapes stretch its positions."""
        name = f"{self.name}-{self.experts}E{ACTIVE}A" if self.experts else self.name
        common = {"learned_variance": self.variance, "position_grid": (self.side, self.side)}
        return ModelSettings(name, gate_init=0.0, **common, **options)

    @property
    def note(self) -> str:
        """What its shapes do not say."""
        active = f" and {ACTIVE} active experts as published" if self.experts else ""
        return f"{self.model().name}: heads as in the size table{active}, shapes do not say them"


def import_dit(weights: Weights, wishes: Wishes) -> Converted:
    """A class-conditional DiT. Raises UserError for what is not in the published layout."""
    trained, codec = Trained.of(weights, KERNEL), wishes.codec()
    if wishes.task not in (None, "image"):
        raise UserError(
            f"--task {wishes.task}: {weights.source} takes no condition image, only a class."
        )
    size, rows = trained.sized(wishes, codec), shape_of(weights, LABELS, 2)[0]
    sampler = "ancestral_learned" if trained.variance else "ancestral_large"
    diffusion = wishes.diffusion(replace(DIFFUSION, sampler=sampler))
    config = RunConfig(
        tasks={"image": ImageSettings(classes=rows - 1)},
        data={"imagefolder": ImageFolderSettings(root="imagenet", size=size)},
        model=trained.model(),
        codec=wishes.codec_settings,
        diffusion=diffusion,
        training=TrainingSettings(precision="float32"),  # as published
        evaluation=EvaluationSettings(nfe=250, members=4, temperature=1.0, views="none"),
    )
    compare(weights, published_shapes(expected(config, codec), trained.side))
    notes = [*weights.notes, *wishes.notes(diffusion)]
    converted = Converted(config, stacked(weights.tensors), {"image": size}, codec, notes=notes)
    converted.assumed = [
        trained.note,
        *_compared(weights, trained, rows - 1),
        f"the last of {rows} label rows is that of no class",
        f"guidance {diffusion.guidance:g} of the first {diffusion.guided_channels} of "
        f"{VAE.latents} latent channels, as in the authors' sample.py; --guidance 1 is off",
        *(read_scheduler(wishes.scheduler)[1] if wishes.scheduler else ()),
    ]
    return converted


def _compared(weights: Weights, trained: Trained, classes: int) -> Iterator[str]:
    """Which arguments of DiT's train.py, stored beside the weights, are theirs; the others say how
    it was trained. Raises UserError for one that is not theirs."""
    args = weights.beside.get("args")
    given = getattr(args, "__dict__", args)
    if not isinstance(given, Mapping):
        return
    side = trained.side * trained.patch * VAE.downsample
    told = {"model": trained.name, "image_size": side, "num_classes": classes}
    for key, value in told.items():
        if given.get(key, value) != value:
            raise UserError(
                f"{weights.source}: args.{key} is {given[key]!r}, its tensors say {value!r}."
            )
    yield f"of its args {', '.join(told)} were compared with the tensors, if there"


def expected(config: RunConfig, codec: Codec | None) -> dict[str, Tensor]:
    """Names and shapes of our backbone for `config`, as tensors without memory."""
    layout = Layout.of(build_tasks(config.tasks), codec or VAE)
    with torch.device("meta"):
        return layout.build(config.model).state_dict()


def published_shapes(ours: Mapping[str, Tensor], side: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a published DiT that becomes the backbone `ours`."""
    named = (part for entry in ours.items() for part in _unstacked(*entry))
    shapes = {name: tuple(value.shape) for name, value in named}
    return {POSITIONS: (1, side * side, ours[LABELS].shape[1]), **shapes}


def stacked(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without positions, in float32, with experts under one name "e ..."."""
    ours: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, value in published.items():
        if expert := EXPERT.fullmatch(name):
            stacks[f"{expert[1]}.{expert[3]}"][int(expert[2])] = value.float()
        elif name != POSITIONS:
            ours[name] = value.float()
    return ours | {
        name: torch.stack([stack[number] for number in sorted(stack)])
        for name, stack in stacks.items()
    }


def export_dit(saved: Checkpoint, out: Path) -> list[str]:
    """Write a DiT's averaged weights as `out`/model.safetensors with DiT's names; returns notes.

    Condition images come before the noisy target in the input channels. Experts get a name each.
    Raises UserError for a backbone that the layout cannot hold.
    """
    from safetensors.torch import save_file

    size = _exportable(saved)
    layout = layout_of(saved)
    weights = saved.tensors(BACKBONE)
    weights[KERNEL] = weights[KERNEL].roll(layout.cond, dims=1).contiguous()
    named = dict(part for entry in weights.items() for part in _unstacked(*entry))
    named = {POSITIONS: _positions(saved, size), **named}
    out.mkdir(parents=True, exist_ok=True)
    save_file(named, out / "model.safetensors")
    rows = ", ".join(f"{task} from {row}" for task, row in layout.rows.items())
    return [
        f"{len(named)} tensors in model.safetensors; load them with "
        f"model.load_state_dict(safetensors.torch.load_file('model.safetensors'))",
        f"input channels: {layout.cond} of the condition, then {layout.target} of the noisy target",
        f"label rows: {rows}; the null row is {layout.labels}",
    ]


def _exportable(saved: Checkpoint) -> DiTSize:
    """The size of the backbone. Raises UserError for what DiT's layout has no names for."""
    model = saved.config.model
    size = parse(model.name)
    beyond = {
        "model.input per_task": model.input == "per_task",
        "model.qk_norm": model.qk_norm,
        "model.shared_experts": model.shared_experts > 0,
        "model.expert_weights renormalised": model.expert_weights == "renormalised",
        "a cost volume": layout_of(saved).features > 0,
    }
    extras = [name for name, present in beyond.items() if present]
    if not isinstance(size, DiTSize) or extras:
        raise UserError(
            f"{saved.path}: DiT's layout cannot hold {model.name}"
            f"{' with ' + ' and '.join(extras) if extras else ''}. Export a DiT trained with "
            f"model.input=shared."
        )
    return size


def _positions(saved: Checkpoint, size: DiTSize) -> Tensor:
    """The positions "1 n d" of the one grid that the checkpoint's tasks share."""
    sizes = {saved.sizes[task] for task in saved.config.tasks}
    if len(sizes) > 1:
        raise UserError(
            f"{saved.path}: its tasks work at different sizes ({sorted(sizes)}), and DiT's layout "
            f"stores the positions of one. Export a checkpoint of one size."
        )
    codec = described_codec(saved.config.codec, saved.home / CODEC)
    cell = size.patch * codec.downsample
    height, width = (side // cell for side in sizes.pop())
    return position_table(height, width, size.width, grid=saved.config.model.position_grid)


def _unstacked(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Stacked experts "e ..." under a name each, and anything else as it is."""
    before, experts, after = name.partition(".moe.experts.")
    if not experts:
        yield name, value
        return
    for number, expert in enumerate(value):
        yield f"{before}{experts}{number}.{after}", expert.contiguous()


def shape_of(weights: Weights, name: str, axes: int) -> tuple[Any, ...]:
    """The shape of a tensor that has so many axes. Raises UserError if there is none such."""
    value = weights.tensors.get(name)
    if value is None or value.ndim != axes:
        fault = "is missing" if value is None else f"is {tuple(value.shape)}"
        raise UserError(f"{weights.source}: {name} {fault}; it should have {axes} axes.")
    return tuple(value.shape)


def _size_name(width: int, depth: int, patch: int, weights: Weights) -> str:
    for base, row in DIT.items():
        if row[:2] == (width, depth):
            return f"{base}/{patch}"
    known = ", ".join(f"{base} {w} x {d}" for base, (w, d, _) in DIT.items())
    raise UserError(
        f"{weights.source}: there is no size of width {width} and depth {depth}; known are {known}."
    )


def _side(weights: Weights, width: int) -> int:
    """Tokens along each axis, from stored positions that must be those that we compute."""
    tokens, channels = shape_of(weights, POSITIONS, 3)[1:]
    side = math.isqrt(tokens)
    if side * side == tokens and channels == width:
        ours = position_table(side, side, width)
        if (weights.tensors[POSITIONS].float() - ours).abs().max() <= TOLERANCE:
            return side
    raise UserError(
        f"{weights.source}: {POSITIONS} ({tokens} tokens, {channels} channels) holds learned or "
        f"different positions, not the fixed sines and cosines of a square grid."
    )
