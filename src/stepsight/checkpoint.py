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
OLD = ".old-"  # of a name: a step folder that is being replaced


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
    name = folder.name.removeprefix(OLD)
    return len(name), name


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
    manifest = {str(path.relative_to(staged)): _entry(path) for path in files}
    (staged / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (staged / "COMPLETE").write_text("complete\n")
    for path in [*staged.rglob("*"), staged]:
        _flush(path)
    _put(staged, final)
    _flush(folder)
    return final


def amend(path: Path, **facts: Any) -> None:
    """Add facts to the meta data of a complete checkpoint, whole or not at all."""
    final = path.with_name(path.name.removeprefix(OLD))
    staged = path.with_name(f".staged-{final.name}")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(path, staged, copy_function=_linked)
    manifest = _json(path / "manifest.json")
    meta = staged / "stepsight.json"
    _rewrite(meta, _json(path / meta.name) | facts)
    manifest[meta.name] = _entry(meta)
    _rewrite(staged / "manifest.json", manifest)
    _flush(staged)
    _put(staged, final)
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
    """Rename into place; what was there is deleted only afterwards. Between the two renames it is
    read under its old name (see `_whole`)."""
    old = final.with_name(OLD + final.name)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
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
        path = _whole(path) or path
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint {path} not found. Give a run folder or one of its checkpoints/step-* "
            f"folders; nothing is looked up elsewhere."
        )
    if (path / "stepsight.json").exists() or re.fullmatch(r"(\.old-)?step-\d+", path.name):
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    for which in (prefer, "last", "best"):
        name = _marked(folder, which)
        if name and (whole := _whole(folder / name)):
            return whole
    if complete := completed(folder):
        return complete[-1]
    raise CheckpointError(
        f"{path} holds no complete checkpoint (looked for checkpoints/step-*/COMPLETE). "
        f"Give a run folder made by training, or let the run reach its first checkpoint."
    )


def completed(folder: Path) -> list[Path]:
    """The complete step folders in `folder`, oldest first."""
    marks = [*folder.glob("step-*/COMPLETE"), *folder.glob(f"{OLD}step-*/COMPLETE")]
    final = {folder / mark.parent.name.removeprefix(OLD) for mark in marks}
    return sorted(filter(None, map(_whole, final)), key=_step)


def _whole(path: Path) -> Path | None:
    """A complete step folder, or what was there when its replacement was killed half-way."""
    places = (path, path.with_name(OLD + path.name))
    return next((one for one in places if (one / "COMPLETE").exists()), None)


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
    wanted = net.state_dict()
    wrong = [f"missing {name}" for name in wanted if name not in weights]
    wrong += [f"unexpected {name}" for name in weights if name not in wanted]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        listing = "; ".join(wrong[:12])
        raise CheckpointError(
            f"{where} holds another model: {listing}{more}. "
            f"Use the model, tasks and diffusion settings it was trained with."
        )


def _verify(folder: Path) -> None:
    for name, entry in _json(folder / "manifest.json").items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"{folder}/manifest.json names {name!r}, outside the folder.")
        if fault := _fault(path, entry):
            raise CheckpointError(f"{path} {fault}. Copy the checkpoint again, or use another.")


def _entry(path: Path) -> dict[str, Any]:
    """A file in the manifest."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _fault(path: Path, entry: dict[str, Any]) -> str:
    """What is wrong with a file of a checkpoint, by its entry in the manifest."""
    if not path.exists():
        return "is missing"
    size, wanted = path.stat().st_size, entry["bytes"]
    if size != wanted:
        return f"has {size} bytes, its manifest says {wanted}: truncated or overwritten"
    whole = _sha256(path) == entry["sha256"]
    return "" if whole else "does not match its sha256 in manifest.json: it is damaged"


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
