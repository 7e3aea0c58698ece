"""`stepsight demo`: a page in the browser on which a checkpoint answers pictures and films."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stepsight.errors import UserError
from stepsight.execution.config import Precision
from stepsight.pipeline.config import Which

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline

PORTS = 65535


@dataclass(frozen=True)
class Args:
    """A page in the browser: drop a picture, two of them or a film, choose task, calls, members or
    a budget; see the answer, its spread and what fewer calls answer; download it. What is dropped
    goes to this machine alone. Needs the extra `demo`. Ctrl-C ends it."""

    # run folder, step folder, tar, or user/name of the hub; default: the small one that comes with
    # stepsight, which knows procedural worlds, and no photographs
    checkpoint: str | None = None
    port: int = 7860  # where the page is served; 0: any that is free
    host: str = "127.0.0.1"  # who may open it: this machine alone; 0.0.0.0: all that reach it
    weights: Literal["ema", "raw"] = "ema"  # those averaged over training, or those being trained
    device: str = "auto"  # cuda, mps, cpu, ...; auto: the fastest that is there
    precision: Precision = "auto"  # of the network; auto: as the run was trained, on this device
    # sizes, clipping and merging of checkpoints from elsewhere: their authors', or ours
    profile: Which = "published"


def run(args: Args) -> int:
    if not 0 <= args.port <= PORTS:
        raise UserError(f"--port {args.port}: give 1 to {PORTS}, or 0 for any that is free.")
    from stepsight.demo.serving import served
    from stepsight.pipeline.dense import DensePipeline

    pipeline = DensePipeline.from_pretrained(
        args.checkpoint,
        args.device,
        weights=args.weights,
        precision=args.precision,
        profile=args.profile,
    )
    name = Path(args.checkpoint).resolve().name if args.checkpoint else "the packaged checkpoint"
    about = _about(pipeline, name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that dropped files go then too
    with served(pipeline, about, args.host, args.port) as address:
        print(f"{about}\n{address} (Ctrl-C ends it)", flush=True)
        signal.pause()
    return 0


def _about(pipeline: DensePipeline, name: str) -> str:
    """What the model is, and of one that knows drawn worlds alone what not to expect of it."""
    about = f"{name}: {', '.join(pipeline.tasks)}."
    drawn = [*pipeline.config.data] == ["scenes"]
    return about + " It learned from procedural worlds: photographs are new to it." * drawn
