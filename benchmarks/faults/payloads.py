"""Files that would run code, or reach out of their folder, in every format that is read: none does.

Each payload touches a file when it runs, its canary, or leads to one, whose content it would give.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.faults import Tally
from benchmarks.faults.files.isolated import tried
from benchmarks.faults.files.specimen import encoded, noise
from stepsight import checkpoint, config, data
from stepsight.checkpoint import format
from stepsight.conversion.foreign import read_tensors
from stepsight.data.decoding import formats, hdf5
from stepsight.data.sharded.members import decode
from stepsight.data.sharded.writing import write_shards
from stepsight.errors import UserError
from stepsight.models.codec import open_codec
from stepsight.models.config import CodecSettings
from stepsight.models.vae import build_vae

BAR = (
    "refused as the user's error, or read as data; nothing runs, nothing outside is read or written"
)


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


@dataclass(frozen=True)
class Payload:
    """read: what a user would do with the file. harmless: it may be read, as data."""

    name: str
    read: Callable[[], object]
    harmless: bool = False


def run(quick: bool, folder: Path) -> list[Tally]:
    """All of them, quick or not: they take seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    canary = folder / "canary"
    made = payloads(folder, canary)

    def case(number: int) -> str | None:
        payload = made[number]
        try:
            payload.read()
            fault = None if payload.harmless else f"{payload.name}: was read"
        except UserError:
            fault = None
        return f"{payload.name}: ran" if canary.exists() else fault

    outcome = tried(case, len(made))
    held, worst = outcome.tried - outcome.failed, "; ".join(outcome.faults[:2])
    return [Tally("payloads that run or reach out", outcome.tried, held, BAR, worst)]


def payloads(folder: Path, canary: Path) -> list[Payload]:
    """All of them, laid out in a folder."""
    secret = folder / "secret.json"
    secret.write_text('{"class_id": 5}')
    return [
        *_weights(folder, canary),
        *_arrays(folder, canary),
        *_settings(folder, canary),
        *_checkpoints(folder, canary, secret),
        *_shards(folder, secret),
    ]


def _weights(folder: Path, canary: Path) -> list[Payload]:
    state = {"weight": torch.ones(2), "code": Runs(canary)}
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    (folder / "raw.pkl").write_bytes(pickle.dumps(Runs(canary)))
    (folder / "raw.pt").write_bytes(pickle.dumps(Runs(canary), protocol=2))
    torch.save({"args": Runs(canary), "state_dict": {"w": torch.ones(1)}}, folder / "args.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # others go on writing such files
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder / "script.pt")
    with (
        zipfile.ZipFile(folder / "script.pt") as old,
        zipfile.ZipFile(folder / "constants.pt", "w") as new,
    ):
        for name in old.namelist():  # the constants of TorchScript are a pickle
            harmful = name.endswith((".pkl",))
            new.writestr(name, pickle.dumps(Runs(canary), 2) if harmful else old.read(name))
    vae = folder / "vae"
    build_vae("vae-tiny").save_pretrained(vae, safe_serialization=False)
    for path in vae.glob("*.bin"):
        torch.save({"weight": Runs(canary)}, path)
    names = ("zip.pt", "legacy.pt", "raw.pkl", "raw.pt", "args.pt", "constants.pt")
    found = [Payload(name, lambda p=folder / name: read_tensors(p)) for name in names]
    return [*found, Payload("VAE .bin", lambda: open_codec(CodecSettings(str(vae))))]


def _arrays(folder: Path, canary: Path) -> list[Payload]:
    objects = np.array([Runs(canary)], dtype=object)
    np.save(folder / "objects.npy", objects, allow_pickle=True)
    np.savez(folder / "objects.npz", a=objects)
    shutil.copy(folder / "objects.npz", folder / "zipped.npy")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').abort(),), }"
    magic = b"\x93NUMPY\1\0" + struct.pack("<H", len(header))
    (folder / "code.npy").write_bytes(magic + header)
    whole = (folder / "objects.npy").read_bytes()
    import h5py

    with h5py.File(folder / "inside.h5", "w") as file:
        file["flow"] = np.ones((2, 2, 2), np.float32)
    with h5py.File(folder / "links.h5", "w") as file:
        file["flow"] = h5py.ExternalLink(str(folder / "inside.h5"), "/flow")
        layout = h5py.VirtualLayout((2, 2, 2), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "inside.h5"), "flow", (2, 2, 2))
        file.create_virtual_dataset("virtual", layout)
        outside = [(str(folder / "inside.h5"), 0, 32)]
        file.create_dataset("external", (2, 2, 2), "f4", external=outside)
    names = ("objects.npy", "objects.npz", "zipped.npy", "code.npy")
    found = [Payload(name, lambda p=folder / name: formats.read_npy(p)) for name in names]
    found += [
        Payload(f"h5 {key}", lambda k=key: hdf5.read_hdf5(folder / "links.h5", k))
        for key in ("flow", "virtual", "external")
    ]
    member = Payload("shard member .npy", lambda: decode("depth.npy", whole, (1, 1), "shard"))
    return [*found, member]


def _settings(folder: Path, canary: Path) -> list[Payload]:
    tags = {
        "apply": f"!!python/object/apply:os.system ['touch {canary}']",
        "new": f"!!python/object/new:os.system ['touch {canary}']",
        "name": "!!python/name:os.system",
        "module": "!!python/module:antigravity",
        "resolver": "${oc.env:HOME}",
    }
    found = []
    for name, tag in tags.items():
        path = folder / f"{name}.yaml"
        path.write_text(f"model: {tag}\n")
        found.append(Payload(f"YAML {name}", lambda p=path: config.load([str(p)])))
    (folder / "class.yaml").write_text("data: {scenes: {implementation: 'os:system'}}\n")
    found.append(Payload("YAML class", lambda: config.load([str(folder / "class.yaml")])))
    return found


def _checkpoints(folder: Path, canary: Path, secret: Path) -> list[Payload]:
    whole = checkpoint.write(
        folder / "checkpoints",
        1,
        config=config.from_dict({"model": {"name": "split-8"}}),
        meta={"step": 1},
        tensors={checkpoint.RAW: {"weight": torch.ones(2)}},
    )
    found = []

    def add(name: str, change: Callable[[Path], None], harmless: bool = False) -> None:
        copy = folder / f"checkpoint-{len(found)}"
        shutil.copytree(whole, copy)
        entries = {
            file.relative_to(copy).as_posix(): format.entry(file)
            for file in copy.rglob("*")
            if file.is_file() and file.name not in (format.MANIFEST, format.COMPLETE)
        }
        change(copy)
        for path in entries:
            if (copy / path).is_file() and ".." not in path:
                entries[path] = format.entry(copy / path)
        if name.startswith("manifest"):
            entries[{"manifest ..": "../../secret.json"}.get(name, str(secret))] = format.entry(
                secret
            )
        format.seal(copy, entries)
        found.append(Payload(f"checkpoint: {name}", lambda: _read(copy), harmless))

    tag = f"model: !!python/object/apply:os.system ['touch {canary}']\n"
    pickled = pickle.dumps(Runs(canary), 2)
    add("YAML tag", lambda at: _put(at / format.CONFIG, tag.encode()))
    add("pickle for weights", lambda at: _put(_tensors(at), pickled))
    add("pickle of torch for weights", lambda at: torch.save(Runs(canary), _tensors(at)))
    add("pickle for meta data", lambda at: _put(at / format.META, pickled))
    add(".metadata", lambda at: _put(at / ".metadata", pickled), harmless=True)
    add("manifest ..", lambda at: None)
    add("manifest /", lambda at: None)
    add("link", lambda at: _link(_tensors(at), secret))
    return found


def _read(path: Path) -> None:
    """All that there is in a checkpoint."""
    saved = checkpoint.read(path)
    assert saved.config is not None
    saved.tensors(checkpoint.RAW)


def _tensors(folder: Path) -> Path:
    return next(folder.rglob("*.safetensors"))


def _put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _shards(folder: Path, secret: Path) -> list[Payload]:
    pictures = folder / "set" / "images"
    pictures.mkdir(parents=True)
    (pictures / "a.png").write_bytes(encoded(noise(4, 4, 3), "PNG"))
    source = data.open("folder", str(folder / "set"))
    found = []
    for name in ("../secret.json", str(secret), "shard-000000.tar/../../secret.json"):
        out = folder / f"shards-{len(found)}"
        write_shards(source, out, per_shard=1)
        index = json.loads((out / "index.json").read_text())
        index["tars"][0]["name"] = name
        (out / "index.json").write_text(json.dumps(index))
        found.append(Payload(f"shards: tar {name}", lambda at=out: data.open("shards", str(at))[0]))
    out = folder / "linked"
    write_shards(source, out, per_shard=1)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:  # names that nobody ever goes by
        for name, kind in (("../../canary", tarfile.REGTYPE), ("/canary", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
    content = (out / "shard-000000.tar").read_bytes() + file.getvalue()
    (out / "shard-000000.tar").write_bytes(content)
    index = json.loads((out / "index.json").read_text())
    index["tars"][0]["bytes"] = len(content)
    (out / "index.json").write_text(json.dumps(index))
    read = Payload("shards: names in a tar", lambda: data.open("shards", str(out))[0], True)
    return [*found, read]
