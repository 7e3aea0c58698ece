"""Merging depth maps: the closed form beside diffusers' `ensemble_depth` and the published rule.

    python benchmarks/ensemble.py [--size 512] [--members 3 5 10] [--repeats 5]

Writes `benchmarks/results/<date>-ensemble.md` (or `--out`). All in one process, on the same maps,
in turns: the median of the repeats after one call each. `ensemble_depth` is called as its pipeline
does, with its own settings. The maps are a smooth truth with noise, each with a scale and a shift
of its own, with and without one member of another scene; the error is the mean absolute one after
the best scale and shift, in percent of the truth's range.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import platform
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.ensemble import align_and_merge, merge_affine

NOISE = 0.05  # of the members, of the range of the truth
RESULTS = Path(__file__).parent / "results"

Merge = Callable[[Tensor], Tensor]  # "e h w" to "h w"


def released() -> Merge:
    """diffusers' function, whose module imports a text encoder that it does not use here."""
    import diffusers  # noqa: F401  (looks for transformers itself, before there is a stand-in)

    if importlib.util.find_spec("transformers") is None:
        stub = types.SimpleNamespace(CLIPTextModel=object, CLIPTokenizer=object)
        sys.modules["transformers"] = stub  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline
    return lambda maps: MarigoldDepthPipeline.ensemble_depth(maps[:, None])[0][0, 0]


def rules() -> dict[str, Merge]:
    """By name; the first is what the others are measured against."""
    return {
        "closed form, median": lambda maps: merge_affine(maps)[0],
        "closed form, mean": lambda maps: align_and_merge(maps[:, None, None], None, "mean")[0],
        "closed form, medoid": lambda maps: align_and_merge(maps[:, None, None], None, "medoid")[0],
        "not aligned, median": lambda maps: merge_affine(maps, "median")[0],
        "published": lambda maps: merge_affine(maps, "published")[0],
        "diffusers": released(),
    }


def members(count: int, size: int, outlier: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A truth "h w" in [0, 1] and members "e h w" of it, float32."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 9, 9, generator=source)
    truth, other = F.interpolate(coarse, size=(size, size), mode="bilinear")[:, 0]
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    maps = truth + NOISE * torch.randn(count, size, size, generator=source)
    if outlier:
        maps[0] = other
    scale = 0.3 + 2 * torch.rand(count, 1, 1, generator=source)
    return truth, scale * maps + torch.randn(count, 1, 1, generator=source)


def error(merged: Tensor, truth: Tensor) -> float:
    """Mean absolute error after the best scale and shift."""
    x, y = merged.flatten().double(), truth.flatten().double()
    x, y = x - x.mean(), y - y.mean()
    return (x * (x @ y) / (x @ x) - y).abs().mean().item()


def timed(merges: dict[str, Merge], maps: Tensor, repeats: int) -> dict[str, tuple[float, Tensor]]:
    """Median wall time of every merge, taken in turns, and what it gives."""
    took: dict[str, list[float]] = {name: [] for name in merges}
    merged: dict[str, Tensor] = {}
    for turn in range(repeats + 1):
        for name, merge in merges.items():
            began = time.perf_counter()
            merged[name] = merge(maps)
            if turn:  # the first one warms up
                took[name].append(time.perf_counter() - began)
    return {name: (statistics.median(took[name]), merged[name]) for name in merges}


def table(merges: dict[str, Merge], count: int, size: int, repeats: int) -> str:
    """Markdown for one number of members."""
    truth, maps = members(count, size, outlier=False)
    spoilt = members(count, size, outlier=True)[1]
    found = timed(merges, maps, repeats)
    fastest = next(iter(found.values()))[0]
    lines = [
        f"## {count} maps of {size} x {size}\n",
        "| rule | ms | times the closed form | error, % | with an outlier, % |",
        "|---|---|---|---|---|",
    ]
    for name, (took, merged) in found.items():
        errors = (100 * error(x, truth) for x in (merged, merges[name](spoilt)))
        figures = " | ".join(f"{value:.3f}" for value in errors)
        lines.append(f"| {name} | {1e3 * took:.1f} | {took / fastest:.2f} | {figures} |")
    return "\n".join([*lines, ""])


def heading(today: str, size: int, members: Sequence[int], repeats: int) -> str:
    machine = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    counts = " ".join(map(str, members))
    return (
        f"# {today}, merging depth maps, {machine}\n\n"
        f"`python benchmarks/ensemble.py --size {size} --members {counts} --repeats {repeats}`, "
        f"torch {torch.__version__}, float32; turns timed: {repeats}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--members", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--repeats", type=int, default=5)
    today = datetime.date.today().isoformat()
    parser.add_argument("--out", type=Path, default=RESULTS / f"{today}-ensemble.md")
    options = parser.parse_args()
    merges, parts = rules(), [heading(today, options.size, options.members, options.repeats)]
    for count in options.members:
        parts.append(table(merges, count, options.size, options.repeats))
        print(parts[-1], flush=True)
    options.out.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
