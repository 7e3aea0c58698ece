"""The paper's generalist: stored answers of its release, from picture to merged prediction.

Those answers were called with pictures that the script's own resizing squashed, to the nearest
pixel for every task, as its readers of data took no part; so the profile's resizing by task is left
out here, and held to formulas in tests/.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from conformance.publishing import drawing, imported, relative, settled
from conformance.rows import Differences, arrays, row
from stepsight.coding import Layout
from stepsight.conversion.dit import VAE, Wishes
from stepsight.conversion.foreign import read_tensors
from stepsight.conversion.generalist import BESIDE, import_generalist
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import single
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

RELEASE = "scaling-diffusion-perception cb9f2c7, stored answers"
GOLDEN = "scaling-perception-generalist"
FILE = Path("checkpoint", "dit_moe_generalist.pt")
RUNS = {"depth": ["depth"], "amodal": ["amodal"], "flow": ["flow_u", "flow_v"]}
CASES = (("a", 1), ("a", 2), ("a", 4), ("b", 4), ("c", 1))  # 64x64, 60x80, 44x152; steps
SIZES = (
    (64, 64),
    (60, 80),
    (241, 319),
    (375, 1242),
    (352, 1216),
    (480, 640),
    (1024, 1024),
    (1080, 1920),
    (97, 33),
    (384, 512),
)
Arrays = dict[str, Tensor]


def stored(folder: Path) -> tuple[Arrays, Arrays]:
    return arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")


@contextmanager
def opened(folder: Path, given: Arrays) -> Iterator[DensePipeline]:
    """The imported release, drawing the noise of its seeds."""
    with imported(folder / FILE) as pipeline:
        pipeline.profile = replace(pipeline.profile, resize_task={}, resize_mask="nearest_exact")
        noise = torch.stack([given[f"noise_{seed}"] for seed in (7, 8, 9)])
        with drawing(noise), torch.inference_mode():
            yield pipeline


def asked(pipeline: DensePipeline, given: Arrays, case: str, task: str) -> Batch:
    image, second, mask = (given[f"{case}_{name}"].numpy() for name in ("image", "second", "mask"))
    return single(image, pipeline.task(task), second=second, mask=mask)


def walked(pipeline: DensePipeline, batch: Batch, task: str, steps: int) -> tuple[Tensor, Tensor]:
    """Members "e c h w", and what the network was given at every step after the first
    "s e p k h w"."""
    states: list[Tensor] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    members = pipeline.sample(batch, task, nfe=steps, members=3)[:, 0]
    hook.remove()
    runs = pipeline.tasks[task].splits
    return members, rearrange(torch.stack(states)[1:], "s (e p) k h w -> s e p k h w", p=runs)


@row("importer", "generalist", oracle=RELEASE, bar=1e-5, golden=GOLDEN)
def generalist(folder: Path) -> Differences:
    """Conditions, latents after every step, members, and what is merged of them, of all four runs
    at three sizes. Depth is merged of stored members: of those that differ by 1e-7 the published
    rule makes maps that differ by 20 %, and so do processors; within that nothing is told."""
    given, theirs = stored(folder)
    found: dict[str, float] = {}
    with opened(folder, given) as pipeline:
        for case, steps in CASES:
            for task in RUNS:
                batch = asked(pipeline, given, case, task)
                members, states = walked(pipeline, batch, task, steps)
                cond = pipeline.code(pipeline.working(batch, task), task).cond
                merged = pipeline.tasks[task].merge(members[:, None])
                for run, name in enumerate(RUNS[task]):
                    key = f"{case}_{steps}_{name}"
                    if (latent := theirs.get(f"{key}_condition_latent")) is not None:
                        found[f"{key} condition"] = relative(cond[run : run + 1], latent)
                    latents = theirs[f"{key}_latents"]
                    if steps > 1:
                        found[f"{key} latents"] = relative(states[:, :, run], latents[:-1])
                    used = members if task != "flow" else members[:, run : run + 1]
                    decoded = pipeline.codec.decode(latents[-1], used.shape[1])
                    found[f"{key} members"] = relative(used, decoded)
                    prediction, kept = theirs[f"{key}_prediction"], theirs.get(f"{key}_members")
                    if kept is not None:
                        found[f"{key} decoded"] = relative(used, kept)
                        merge = pipeline.tasks[task].merge
                        found[f"{key} prediction"] = settled(
                            lambda x, merge=merge: merge(x[:, None]).values, kept, prediction
                        )
                    elif task != "depth":
                        answer = merged.x if task == "amodal" else merged.x[:, run : run + 1]
                        found[f"{key} prediction"] = relative(answer, prediction)
    return found


@row("network", "generalist", oracle=RELEASE, bar=1e-5, golden=GOLDEN)
def forward(folder: Path) -> Differences:
    """The answers to rows of all tasks in one batch, in float32 and in float64, whose frequencies
    are float32's: their last digits are the processor's own."""
    given, theirs = stored(folder)
    imported_run = import_generalist(read_tensors(folder / FILE), Wishes())
    layout = Layout.of(build_tasks(imported_run.config.tasks), VAE)
    net: Any = layout.build(imported_run.config.model).eval().requires_grad_(False)
    net.load_state_dict(imported_run.weights)
    x, t, label = given["forward_x"], given["forward_t"], given["forward_y"] - 1000
    plain = net(x[:, 8:], x[:, :8], t, label)
    wide = net.double()(x[:, 8:].double(), x[:, :8].double(), t, label)
    exact = relative(wide, theirs["forward_float64"])
    return {"float32": relative(plain, theirs["forward"]), "float64": exact}


def squashed(task: str, image: Tensor, second: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Picture and prompt "1 3 64 64" by the release's calls: its readers', then its script's."""
    to = partial(F.interpolate, size=(64, 64))
    if task == "depth":
        return to(image, mode="nearest-exact"), torch.ones(1, 3, 64, 64)
    picture = to(image.double(), mode="bilinear", align_corners=False).float()
    if task == "amodal":
        return picture, to(mask * 2 - 1, mode="nearest").expand(-1, 3, -1, -1)
    return picture, to(second.double(), mode="bilinear", align_corners=False).float()


@row(
    "profile",
    "generalist",
    oracle="diffusers 0.42 DDIMScheduler, AutoencoderKL; torch's resizing as the release calls it",
    bar=1e-5,
    golden=GOLDEN,
    needs=("diffusers",),
)
def release(folder: Path) -> Differences:
    """Members after 50 steps from pictures of ten sizes, the network being ours."""
    from diffusers import AutoencoderKL, DDIMScheduler  # pyright: ignore[reportPrivateImportUsage]

    given, found = arrays(folder / "inputs.npz"), {}
    parts = folder / FILE.parent / BESIDE
    vae: Any = AutoencoderKL.from_pretrained(parts / "vae")
    scheduler: Any = DDIMScheduler.from_pretrained(parts / "scheduler")
    scheduler.set_timesteps(50)
    draw = torch.Generator().manual_seed(0)
    with opened(folder, given) as pipeline:
        pipeline = pipeline.profiled("published")
        for (height, width), task in zip(SIZES, cycle(RUNS)):
            pixels = torch.randint(0, 256, (2, height, width, 3), generator=draw).byte()
            mask = torch.rand(height, width, generator=draw) > 0.5
            image, second = (x.permute(2, 0, 1)[None].float() / 255 * 2 - 1 for x in pixels)
            both = squashed(task, image, second, mask[None, None].float())
            cond = torch.cat([vae.encode(x).latent_dist.mean * 0.18215 for x in both], dim=1)
            theirs = []
            for label in range(*pipeline.layout.span(task).indices(4)):
                x = torch.stack([given[f"noise_{seed}"] for seed in (7, 8)])
                for t in scheduler.timesteps:
                    asked_of = cond.expand(2, -1, -1, -1), t.expand(2), torch.tensor([label] * 2)
                    v = pipeline.net(x, *asked_of)[:, :4]
                    x = scheduler.step(v, t, x).prev_sample
                decoded = vae.decode(x / 0.18215).sample
                theirs.append(decoded if task == "amodal" else decoded.mean(1, keepdim=True))
            a, b = pixels.numpy()
            batch = single(a, pipeline.task(task), second=b, mask=mask.numpy())
            ours = pipeline.sample(batch, task, nfe=50, members=2)[:, 0]
            found[f"{task} {height}x{width}"] = relative(ours, torch.cat(theirs, dim=1))
    return found
