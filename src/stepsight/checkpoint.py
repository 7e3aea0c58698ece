"""The checkpoint format: a folder of safetensors and JSON, complete or absent.

    step-000600/
      config.yaml                                     the resolved run
      stepsight.json                                  format version, tasks, sizes, images seen
      backbone/diffusion_pytorch_model.safetensors    averaged weights: what a user wants
      raw/diffusion_pytorch_model.safetensors         the weights being trained
      baselines/statistics.safetensors                training statistics of the trivial predictors
      train_state/optimizer.safetensors               moments and momentum
      manifest.json                                   size and sha256 of every file
      COMPLETE                                        written last

A folder is staged under another name, flushed to disk, and renamed into place, so that a killed
run never leaves half a checkpoint. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepsight.config import RunConfig, as_it_was, from_dict
from stepsight.errors import UserError

FORMAT = 1
WEIGHTS = "diffusion_pytorch_model.safetensors"
BACKBONE, RAW = f"backbone/{WEIGHTS}", f"raw/{WEIGHTS}"
STATISTICS = "baselines/statistics.safetensors"
OPTIMIZER = "train_state/optimizer.safetensors"
CODEC = "codec"  # of a run folder: its own copy of the VAE


class CheckpointError(UserError):
    """A checkpoint that is missing, unfinished, damaged or of another model."""


@dataclass
class Checkpoint:
    """A verified step folder, read lazily by file."""

    path: Path
    config: RunConfig
    meta: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, such as BACKBONE; {} if the file is absent."""
        file = self.path / name
        if not file.exists():
            return {}
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not a readable safetensors file: {error}") from None

    def digest(self) -> str:
        """12 hex digits of the evaluated weights."""
        return _sha256(self.path / BACKBONE)[:12]


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def _step(folder: Path) -> tuple[int, str]:
    """Sorts step folders by number, beyond six digits too."""
    return len(folder.name), folder.name


def write(
    folder: Path,
    step: int,
    *,
    config: RunConfig,
    meta: dict[str, Any],
    tensors: dict[str, dict[str, Tensor]],
) -> Path:
    """Write `folder/step-N` whole or not at all; returns its path."""
    final = folder / step_name(step)
    staged = folder / f".staged-{step_name(step)}"
    shutil.rmtree(staged, ignore_errors=True)
    for name, values in tensors.items():
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.detach().cpu().contiguous() for key, value in values.items()}, path)
    (staged / "config.yaml").write_text(config.to_yaml())
    meta = {"format": FORMAT, "step": step, **meta}
    (staged / "stepsight.json").write_text(json.dumps(meta, indent=2) + "\n")
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    manifest = {
        str(path.relative_to(staged)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in files
    }
    (staged / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (staged / "COMPLETE").write_text("complete\n")
    for path in [*staged.rglob("*"), staged]:
        _flush(path)
    _put(staged, final)
    _flush(folder)
    return final


def amend(path: Path, **facts: Any) -> None:
    """Add facts to the meta data of a complete checkpoint, whole or not at all."""
    staged = path.with_name(f".staged-{path.name}")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(path, staged, copy_function=_linked)
    manifest = _json(path / "manifest.json")
    meta = staged / "stepsight.json"
    _rewrite(meta, _json(path / meta.name) | facts)
    manifest[meta.name] = {"bytes": meta.stat().st_size, "sha256": _sha256(meta)}
    _rewrite(staged / "manifest.json", manifest)
    _flush(staged)
    _put(staged, path)
    _flush(path.parent)


def _linked(old: str, new: str) -> None:
    """Another name of the same file; a copy where the file system has no such names."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def _rewrite(path: Path, values: dict[str, Any]) -> None:
    path.unlink()
    path.write_text(json.dumps(values, indent=2) + "\n")
    _flush(path)


def _put(staged: Path, final: Path) -> None:
    """Rename into place; what was there is deleted only afterwards."""
    old = final.with_name(f".old-{final.name}")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    try:
        os.replace(staged, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def mark(folder: Path, which: str, name: str) -> None:
    """Point `last.txt` or `best.txt` at a step folder, atomically."""
    staged = folder / f".{which}.txt"
    staged.write_text(name + "\n")
    _flush(staged)
    os.replace(staged, folder / f"{which}.txt")


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` step folders, the best, and the last that was written:
    in a run continued from an earlier step that one is not the newest by number."""
    marked = {_marked(folder, "best"), _marked(folder, "last")}
    steps = sorted((path for path in folder.glob("step-*") if path.is_dir()), key=_step)
    for path in steps[: max(0, len(steps) - keep)]:
        if path.name not in marked:
            shutil.rmtree(path)


def resolve(path: str | Path, prefer: str = "best") -> Path:
    """The step folder that `path` means: itself, or a run's best (else last) one.

    Raises CheckpointError saying what was found instead.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint {path} not found. Give a run folder or one of its checkpoints/step-* "
            f"folders; nothing is looked up elsewhere."
        )
    if (path / "stepsight.json").exists() or re.fullmatch(r"step-\d+", path.name):
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    for which in (prefer, "last", "best"):
        name = _marked(folder, which)
        if name and (folder / name / "COMPLETE").exists():
            return folder / name
    if complete := completed(folder):
        return complete[-1]
    raise CheckpointError(
        f"{path} holds no complete checkpoint (looked for checkpoints/step-*/COMPLETE). "
        f"Give a run folder made by train.py, or let the run reach its first checkpoint."
    )


def completed(folder: Path) -> list[Path]:
    """The complete step folders in `folder`, oldest first."""
    return sorted((one.parent for one in folder.glob("step-*/COMPLETE")), key=_step)


def read(path: str | Path, prefer: str = "best") -> Checkpoint:
    """Open and verify the checkpoint that `path` means (see `resolve`).

    Every file is compared with the manifest. Raises CheckpointError naming the file and the reason.
    """
    folder = resolve(path, prefer)
    if not (folder / "COMPLETE").exists():
        others = completed(folder.parent)
        instead = f" Use {others[-1].name}." if others else ""
        raise CheckpointError(f"{folder} has no COMPLETE marker: it is unfinished.{instead}")
    meta = _json(folder / "stepsight.json")
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder}: format {meta.get('format')!r}, this version reads {FORMAT}. "
            f"Use the version of stepsight that wrote it."
        )
    _verify(folder)
    return Checkpoint(folder, _config(folder / "config.yaml"), meta)


def load_weights(net: nn.Module, weights: dict[str, Tensor], where: str | Path) -> None:
    """Load strictly: missing, extra and mis-shaped names are one error that lists them."""
    check_weights(net, weights, where)
    net.load_state_dict(weights)


def check_weights(net: nn.Module, weights: dict[str, Tensor], where: str | Path) -> None:
    """Raise CheckpointError, listing what differs, unless `weights` are those of such a network."""
    own = net.state_dict()
    missing = [f"missing {name}" for name in own if name not in weights]
    extra = [f"unexpected {name}" for name in weights if name not in own]
    shaped = [
        f"{name} is {tuple(weights[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    wrong = missing + extra + shaped
    if wrong:
        more = f" and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        listing = "; ".join(wrong[:12])
        raise CheckpointError(
            f"{where} holds another model: {listing}{more}. "
            f"Use the model, tasks and diffusion settings it was trained with."
        )


def pack_optimizers(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Optimizer state as named tensors `<optimizer>.<parameter>.<slot>`."""
    return {
        f"{which}.{index}.{slot}": torch.as_tensor(value)
        for which, optimizer in enumerate(optimizers)
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def unpack_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor], where: str | Path
) -> None:
    """The inverse of `pack_optimizers`. Raises CheckpointError for the state of other optimizers.

    A parameter that no batch has touched yet has no state, here as there. State is laid out in
    memory as its parameter is: fused optimizers walk through both without looking at strides.
    """
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            owner, index, slot = name.split(".")
            if int(owner) == which:
                state.setdefault(int(index), {})[slot] = value
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if not state or not all(_fits(params, *entry) for entry in state.items()):
            raise CheckpointError(
                f"{where}/{OPTIMIZER} holds the state of other optimizers. "
                f"Continue with the optimizer it was trained with, or use --init-from."
            )
        for index, slots in state.items():
            state[index] = {slot: _laid_out(value, params[index]) for slot, value in slots.items()}
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def _fits(params: list[Tensor], index: int, slots: dict[str, Tensor]) -> bool:
    """Whether slots (shaped as their parameter, or a count of steps) belong to a parameter."""
    shapes = {(), tuple(params[index].shape)} if index < len(params) else set()
    return all(tuple(value.shape) in shapes for value in slots.values())


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """`value` with the strides of `like` where it has its shape."""
    return torch.empty_like(like).copy_(value) if value.shape == like.shape else value


def _verify(folder: Path) -> None:
    for name, entry in _json(folder / "manifest.json").items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"{folder}/manifest.json names {name!r}, outside the folder.")
        if not path.exists():
            raise CheckpointError(f"{path} is missing. Copy the checkpoint again, or use another.")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise CheckpointError(
                f"{path} has {size} bytes, its manifest says {entry['bytes']}: truncated or "
                f"overwritten. Copy the checkpoint again, or use another."
            )
        if _sha256(path) != entry["sha256"]:
            raise CheckpointError(
                f"{path} does not match its sha256 in manifest.json: it is damaged. "
                f"Copy the checkpoint again, or use another."
            )


def _config(path: Path) -> RunConfig:
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    return from_dict(as_it_was(values), str(path))


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: this is not a stepsight checkpoint.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None


def _marked(folder: Path, which: str) -> str | None:
    file = folder / f"{which}.txt"
    return file.read_text().strip() if file.exists() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
