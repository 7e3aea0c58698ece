"""Peak memory: of the GPU where there is one, else of the process."""

from __future__ import annotations

import torch


def reset_peak(device: torch.device) -> None:
    """Forget earlier peaks of a GPU; a process cannot forget its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    """Peak memory in GB: allocated on the GPU since `reset_peak`, else resident since the start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
