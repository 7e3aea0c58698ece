"""What the machine can do: disk, reading data, kernels, tracking."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from stepsight.doctor.findings import Finding
from stepsight.doctor.patient import Patient
from stepsight.errors import UserError
from stepsight.models.moe import grouped_linear
from stepsight.training.planning.dry_run import describe
from stepsight.training.planning.hours import Speed, per_picture
from stepsight.training.planning.judge import size
from stepsight.training.planning.memory import memory_of
from stepsight.training.spec import RunSpec

WRITTEN = 64 << 20  # bytes that the disk is timed with
SHARE = 0.05  # of the time that may go into checkpoints
PRODUCT = 1024  # side of the matrices that a processor is timed with


def disk(patient: Patient) -> Finding:
    """Room for the checkpoints of a run, and how long one takes."""
    training = patient.config.training
    parts = memory_of(patient.config, patient.tasks, 1, 1, "cpu", patient.workload)
    one = parts.weights + parts.average + parts.optimizer
    needed = (training.keep + 2) * one  # the best, and the one that is being written
    nearest = next(x for x in (patient.runs, *patient.runs.absolute().parents) if x.is_dir())
    room, (speed, sync) = shutil.disk_usage(nearest).free, _timed(nearest)
    said = (
        f"{size(room)} free at {nearest.absolute()}; a checkpoint has {size(one)}, a run keeps up "
        f"to {training.keep + 2}: {size(needed)}. Writes {speed / 1e6:.0f} MB/s, fsync "
        f"{1000 * sync:.1f} ms, so a checkpoint takes {one / speed + 8 * sync:.1f} s"
    )
    if needed > room:
        advice = "Free space, write elsewhere with --run-dir, or lower training.keep."
        return Finding("disk", "fail", said, advice)
    share = (one / speed + 8 * sync) / (60 * training.save_minutes or float("inf"))
    if share > SHARE:
        advice = f"{share:.0%} of the time at training.save_minutes: raise it, or write elsewhere."
        return Finding("disk", "warn", said, advice)
    return Finding("disk", "ok", said)


def _timed(folder: Path) -> tuple[float, float]:
    """Bytes a second, and seconds of a small fsync."""
    path, block = folder / f".stepsight-doctor-{os.getpid()}", os.urandom(1 << 20)
    try:
        with path.open("wb", buffering=0) as file:
            file.write(block)
            began = time.perf_counter()
            os.fsync(file.fileno())
            sync = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(WRITTEN // len(block)):
                file.write(block)
            os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - began), sync
    finally:
        path.unlink(missing_ok=True)


def data(patient: Patient) -> Finding:
    """Whether samples are read as fast as they are trained on."""
    config, check = patient.config, "data"
    try:
        spec = RunSpec.of(config, patient.folder)
    except UserError as error:
        return Finding(check, "fail", str(error), "Training would stop at its start.")
    slowest = min((_read_rate(source), name) for name, source in spec.sources.items())
    readers = max(config.training.workers, 1)
    per_image = per_picture(config, patient.workload, spec)
    per_image = per_image or describe(config, patient.workload)["flops_train_per_image"]
    reached, whom = _flops_per_second()
    needed, given = reached / per_image, slowest[0] * readers
    streams = getattr(config.data[slowest[1]], "stream", False)
    said = (
        f"{slowest[1]}: {given:.0f} pictures/s by {readers} reader{'s'[: readers > 1]}; {whom} "
        f"trains {needed:.3g} pictures/s at most"
    )
    if not streams:
        said += ". They are made once and kept at working size"
    if given >= needed or not streams:
        return Finding(check, "ok", said)
    advice = (
        f"Set training.workers to {int(readers * needed / given) + 1} or more, write shards "
        "(`stepsight data shard`), or set stream False."
    )
    return Finding(check, "warn", said, advice)


def _read_rate(source) -> float:  # noqa: ANN001
    """Samples a second, over about a second of them."""
    source[0]  # opens files
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 1 and count < 256:
        source[count % len(source)]
        count += 1
    return count / (time.perf_counter() - began)


def _flops_per_second() -> tuple[float, str]:
    """What training may reach here, and whose speed that is."""
    if torch.cuda.is_available():
        speed = Speed()
        return speed.tflops * 1e12 * speed.mfu, f"a GPU of {speed.tflops:g} TFLOP/s at 40 %"
    x = torch.randn(PRODUCT, PRODUCT)
    seconds = _seconds(lambda: x @ x)
    return 2 * PRODUCT**3 / seconds, "a process on this CPU"


def _seconds(work: Callable[[], object], times: int = 3) -> float:
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def kernels(patient: Patient) -> Finding:
    """Attention, grouped products and bfloat16 as the device has them, against plain ones."""
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    worst = {
        "grouped product": _grouped(device),
        "flash attention": _attention(device),
        "bfloat16 product": _half(device),
    }
    wrong = {name: error for name, error in worst.items() if not error < 0.05}
    where = torch.cuda.get_device_name() if cuda else "no GPU here; on this CPU"
    numbers = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    said = f"{where}: relative errors {numbers}"
    if wrong:
        advice = f"{', '.join(wrong)}: another build of torch, or --training.precision float32."
        return Finding("kernels", "fail", said, advice)
    if cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        advice = "bfloat16 is emulated here: use --training.precision fp16."
        return Finding("kernels", "warn", said, advice)
    return Finding("kernels", "ok", said)


def _grouped(device: str) -> float:
    rows, weight = torch.randn(64, 64, device=device), torch.randn(4, 32, 64, device=device)
    ends = torch.tensor([8, 24, 24, 64], dtype=torch.int32, device=device)
    starts = [0, *ends.tolist()]
    parts = [rows[a:b] @ w.T for a, b, w in zip(starts, starts[1:], weight)]
    found = grouped_linear(rows.bfloat16(), weight.bfloat16(), ends)
    return _error(found, torch.cat(parts))


def _attention(device: str) -> float:
    q, k, v = torch.randn(3, 2, 4, 64, 64, device=device).unbind()
    plain = ((q @ k.mT) / 8).softmax(dim=-1) @ v
    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            found = F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    except RuntimeError:
        return float("inf")
    return _error(found, plain)


def _half(device: str) -> float:
    x = torch.randn(256, 256, device=device)
    return _error(x.bfloat16() @ x.bfloat16(), x @ x)


def _error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.float() - truth).norm() / truth.norm())


def tracker(patient: Patient) -> Finding:
    """Whether curves get to where they are sent."""
    chosen, check = patient.config.training.tracker, "tracker"
    if chosen == "none":
        return Finding(check, "ok", "none: curves are in metrics.jsonl and report.html")
    import wandb

    if chosen == "wandb" and not wandb.api.api_key:
        advice = "Log in with `wandb login`, or set training.tracker wandb-offline."
        return Finding(check, "warn", "wandb has no key: the run would record offline", advice)
    return Finding(check, "ok", f"{chosen}; should the network fail, the run goes on without it")
