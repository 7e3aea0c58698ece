"""The paper's generalist: stored answers of its release, from picture to merged prediction.

Those answers were called with pictures that the script's own resizing squashed, to the nearest
pixel for every task, as its readers of data took no part; so the profile's resizing by task is left
out here, and held to formulas in tests/.

The release keeps the codec's weights in torch's usual order, we keep channels last, which is faster
on GPUs and rounds otherwise. A depth prompt of ones is a constant picture, and group norms divide
what little varies in it, rounding, by itself: its latent moves by 4e-5 where others move by 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from conformance.publishing import drawing, imported, relative
from conformance.rows import Differences, arrays, row
from stepsight.coding import Layout
from stepsight.conversion.dit import VAE, Wishes
from stepsight.conversion.foreign import read_tensors
from stepsight.conversion.generalist import import_generalist
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import single
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

RELEASE = "scaling-diffusion-perception cb9f2c7, stored answers"
GOLDEN = "scaling-perception-generalist"
FILE = Path("checkpoint", "dit_moe_generalist.pt")
RUNS = {"depth": ["depth"], "amodal": ["amodal"], "flow": ["flow_u", "flow_v"]}
CASES = (("a", 1), ("a", 2), ("a", 4), ("b", 4), ("c", 1))  # 64x64, 60x80, 44x152; steps
ORDERS = {"usual": torch.contiguous_format, "last": torch.channels_last}  # of channels in memory
Arrays = dict[str, Tensor]


def stored(folder: Path) -> tuple[Arrays, Arrays]:
    return arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")


@contextmanager
def opened(folder: Path, given: Arrays, order: str) -> Iterator[DensePipeline]:
    """The imported release, drawing the noise of its seeds."""
    with imported(folder / FILE) as pipeline:
        codec: Any = pipeline.codec
        codec._module.to(memory_format=ORDERS[order])
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


def compared(folder: Path, order: str) -> Differences:
    given, theirs = stored(folder)
    found: dict[str, float] = {}
    with opened(folder, given, order) as pipeline:
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
                        answer = pipeline.tasks[task].merge(kept[:, None]).values
                        found[f"{key} prediction"] = relative(answer, prediction)
                    elif task != "depth":
                        answer = merged.x if task == "amodal" else merged.x[:, run : run + 1]
                        found[f"{key} prediction"] = relative(answer, prediction)
    return found


@row("importer", "generalist", oracle=RELEASE, bar=1e-5, golden=GOLDEN)
def generalist(folder: Path) -> Differences:
    """Conditions, latents after every step, members, and what is merged of them, of all four runs
    at three sizes; the codec's weights in the release's order in memory. Depth is merged of stored
    members: of those that differ by 1e-7 the published rule makes maps that differ by 20 %."""
    return compared(folder, "usual")


@row("importer", "generalist, channels last", oracle=RELEASE, bar=5e-5, golden=GOLDEN)
def generalist_as_run(folder: Path) -> Differences:
    """The same as we run it: the latent of a constant depth prompt is its rounding, enlarged."""
    return compared(folder, "last")


@row("network", "generalist", oracle=RELEASE, bar=1e-5, golden=GOLDEN)
def forward(folder: Path) -> Differences:
    """The answers to rows of all tasks in one batch, in float32 and in float64 (times 1e7)."""
    given, theirs = stored(folder)
    imported_run = import_generalist(read_tensors(folder / FILE), Wishes())
    layout = Layout.of(build_tasks(imported_run.config.tasks), VAE)
    net: Any = layout.build(imported_run.config.model).eval().requires_grad_(False)
    net.load_state_dict(imported_run.weights)
    x, t, label = given["forward_x"], given["forward_t"], given["forward_y"] - 1000
    plain = net(x[:, 8:], x[:, :8], t, label)
    wide = net.double()(x[:, 8:].double(), x[:, :8].double(), t, label)
    exact = relative(wide, theirs["forward_float64"])
    return {"float32": relative(plain, theirs["forward"]), "float64, times 1e7": 1e7 * exact}
