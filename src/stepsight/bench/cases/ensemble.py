"""An ensemble of depth maps by an imported Marigold, from the picture to the answer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.bench.peers.marigold import Unmerged, opened, write_folder
from stepsight.bench.protocol import Contest, Row, Setup, Work, assert_close
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.execution.config import Precision
from stepsight.execution.noise import normal
from stepsight.execution.precision import DTYPES
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.types import Batch

PROTOCOL = """A Marigold of random weights (U-Net and VAE of diffusers' classes, DDIM, trailing),
opened by diffusers and imported here: calls x members of one picture, from the same starts.
Members agree to 1e-4 in float32 and 5e-2 in bf16 (relative norm). batch: members that diffusers
denoises at a time, 1 unless it is told. Without merge neither side aligns and merges them. bf16 of
diffusers is its torch_dtype; as shipped it is float32 and batch 1. CPU: U-Net 64-128-128, VAE
32-64-64-64; GPU: Stable Diffusion 2's U-Net and VAE."""

TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "bf16": 5e-2}
Size = tuple[int, int]
SMALL: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "use_linear_projection": True,
    "norm_num_groups": 8,
}
TINY = {"block_out_channels": (16, 32, 32), "attention_head_dim": (2, 4, 4), **SMALL}
CPU = {"block_out_channels": (64, 128, 128), "attention_head_dim": (4, 8, 8), **SMALL}
SD2: dict[str, Any] = {  # the defaults of the class are those of Stable Diffusion 1
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


def run(setup: Setup) -> Iterator[Row]:
    unet, vae = setup.pick(
        (TINY, (8, 8, 8, 8)), (CPU, (32, 64, 64, 64)), (SD2, (128, 256, 512, 512))
    )
    size = setup.pick((32, 32), (192, 256), (512, 512))
    calls, members = setup.pick((2, 3), (4, 4), (10, 10))
    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(Path(name, "published"), unet, vae)
        write(import_published(folder), Path(name, "run"))
        both = TwoPipelines(folder, Path(name, "run"), size, calls, members, setup.device)
        for merged in (True, False):
            yield from setup.timed(both.contest(merged))


class TwoPipelines:
    """The same model in diffusers and here."""

    def __init__(
        self, theirs: Path, ours: Path, size: Size, calls: int, members: int, device: str
    ) -> None:
        self.size, self.calls, self.members, self.device = size, calls, members, device
        self.image = torch.rand(1, 3, *size, device=device)
        self.batch = Batch(2 * self.image - 1, keys=["one"], sources=["bench"])
        self.pipes: dict[Precision, Any] = {
            name: opened(theirs, device).to(DTYPES[name]) for name in TOLERANCES
        }
        self.ours = {
            name: DensePipeline.from_pretrained(ours, device, precision=name, profile="stepsight")
            for name in self.pipes
        }
        for pipeline in self.ours.values():
            pipeline.sizes["depth"] = size
        self.starts = self._starts()
        self.check()

    def _starts(self) -> Tensor:
        """The latents "e 4 h w" that our members set out from."""
        (key,) = content_keys(self.batch.image).tolist()
        rows = torch.tensor([[key, member, 0] for member in range(self.members)])
        height, width = (side // 8 for side in self.size)
        return normal(("sample", 0), rows.to(self.device), (4, height, width))

    def drawn(self, pipeline: DensePipeline) -> Tensor:
        return pipeline.sample(self.batch, "depth", nfe=self.calls, members=self.members)

    def asked(self, pipe: Any, batch: int) -> Any:
        return pipe(
            self.image,
            num_inference_steps=self.calls,
            ensemble_size=self.members,
            batch_size=batch,
            processing_resolution=0,
            match_input_resolution=False,
            latents=self.starts.to(pipe.dtype),
            output_type="pt",
        )

    def check(self) -> None:
        wanted = self.asked(Unmerged(self.pipes["float32"]), self.members)[:, 0]
        for name, tolerance in TOLERANCES.items():
            found = (self.drawn(self.ours[name])[:, 0, 0].clip(-1, 1) + 1) / 2
            assert_close(found, wanted, tolerance, f"our members in {name}")
            theirs = self.asked(Unmerged(self.pipes[name]), 1)[:, 0].float()
            assert_close(theirs, wanted, tolerance, f"diffusers' members in {name}")

    def contest(self, merged: bool) -> Contest:
        sides: dict[str, Work] = {}
        for name, pipe in self.pipes.items():
            for batch in (1, self.members):
                asked = pipe if merged else Unmerged(pipe)
                sides[f"diffusers, {name}, batch {batch}"] = partial(self.asked, asked, batch)
        for name, pipeline in self.ours.items():
            sides[f"ours, {name}"] = partial(self.answer if merged else self.drawn, pipeline)
        size = " x ".join(map(str, self.size))
        merge = "with" if merged else "without"
        case = f"{self.calls} x {self.members} at {size}, {merge} merge"
        wanted = 1.5 if torch.device(self.device).type == "cpu" else 3.0
        peer = "diffusers, float32, batch 1"
        return Contest(case, sides, peer, {"ours, bf16": wanted}, rounds=5)

    def answer(self, pipeline: DensePipeline) -> Any:
        return pipeline.predict(self.batch, "depth", nfe=self.calls, members=self.members)
