"""The machine, and how fast it multiplies and copies."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version

import torch

from gpu.row import Row
from gpu.timing import device_of, seconds
from stepsight.training.profile.ceiling import matmul_flops

PACKAGES = ("torch", "diffusers", "timm", "accelerate", "triton")


def run(size: str) -> Iterator[Row]:
    device = device_of(size)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    yield Row("device", note=name)
    yield Row("versions", note=f"Python {platform.python_version()}, {_versions()}")
    for precision in ("bf16", "float32"):
        flops = matmul_flops(device, precision, 64 if size == "tiny" else None)
        yield Row(f"product of matrices, {precision}", flops / 1e12, "TFLOP/s")
    a = torch.empty(1 << (16 if size == "tiny" else 30), dtype=torch.uint8, device=device)
    spent = seconds(a.clone, device)
    yield Row("copy, read and written", 2 * a.nbytes / spent / 1e12, "TB/s")


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except ModuleNotFoundError:  # triton is not everywhere
            continue
    return ", ".join(found)
