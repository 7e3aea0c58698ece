"""What figures were measured on and with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from stepsight.training.folder import revision

PACKAGES = ("torch", "diffusers", "timm", "numpy", "safetensors")
WIDE = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")  # that products gain by


def machine() -> dict[str, Any]:
    """Processor, cores, the wide instructions it has, and the GPU ("" without one)."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "instructions": [name for name in WIDE if name in _flags()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def versions() -> dict[str, str]:
    """Of Python, of the packages that the figures depend on, and of this one."""
    found = {name: version(name) for name in PACKAGES}
    own = {"stepsight": f"{version('stepsight')} {revision()}".strip()}
    return {"python": platform.python_version(), **found, **own}


def load() -> float:
    """Processes that want a core, averaged over a minute."""
    return round(os.getloadavg()[0], 2)


def processor() -> str:
    """Its name and model, as far as the system tells."""
    facts = _facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    place = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return f"{name} ({', '.join(place)})" if place else name


def _flags() -> set[str]:
    facts = _facts()
    return set((facts.get("flags") or facts.get("Features") or "").split())


def _facts() -> dict[str, str]:
    """Of the first processor in /proc/cpuinfo."""
    table = Path("/proc/cpuinfo")
    first = table.read_text().partition("\n\n")[0] if table.is_file() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
