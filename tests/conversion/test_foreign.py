"""Files from elsewhere: what is no checkpoint is refused by name, and no code in it is run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stepsight.cli.main import main
from stepsight.conversion.foreign import read_tensors
from stepsight.conversion.recognise import recognise
from stepsight.errors import UserError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Code:
    """A pickle of it makes a file when it is opened as pickles are."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def zipped(path: Path) -> None:
    torch.save({"x": torch.randn(4096)}, path)


def old(path: Path) -> None:
    torch.save({"x": torch.randn(4096)}, path, _use_new_zipfile_serialization=False)


def cut(write):
    def made(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:3000])

    return made


def harmful(zip_file: bool):
    def made(path: Path) -> None:
        value = {"x": Code(path.parent / "ran")}
        torch.save(value, path, _use_new_zipfile_serialization=zip_file)

    return made


REFUSED = {
    "html": ("w.pt", lambda p: p.write_text("\n<!DOCTYPE html><html>404"), "an HTML page"),
    "html.safetensors": ("w.safetensors", lambda p: p.write_text("<html>"), "an HTML page"),
    "text": ("w.pt", lambda p: p.write_text("access denied"), "neither safetensors"),
    "empty": ("w.pt", lambda p: p.touch(), "is empty"),
    "pointer": (
        "w.pt",
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "git lfs pull",
    ),
    "cut zip": ("w.pt", cut(zipped), "truncated or damaged"),
    "cut pickle": ("w.pt", cut(old), "truncated or damaged"),
    "cut safetensors": (
        "w.safetensors",
        cut(lambda p: save_file({"x": torch.randn(4096)}, p)),
        "truncated or damaged",
    ),
    "code": ("w.pt", harmful(True), "system"),
    "code in an old file": ("w.pt", harmful(False), "system"),
    "class": ("w.pt", lambda p: torch.save({"x": Path("x")}, p), "it would run code (pathlib."),
    "array of objects": (
        "w.pt",
        lambda p: torch.save({"x": np.array([Code(p.parent / "ran")])}, p),
        "it would run code",
    ),
    "other functions of NumPy": (
        "w.pt",
        lambda p: torch.save({"x": np.random.default_rng(0)}, p),
        "it would run code (numpy.random",
    ),
    "tensor": ("w.pt", lambda p: torch.save(torch.ones(2), p), "holds a Tensor, not a state dict"),
    "nothing": ("w.pt", lambda p: torch.save({}, p), "empty dict, not a state dict"),
    "numbers": ("w.pt", lambda p: torch.save({"x": 1}, p), "'x' is a int"),
    "unknown": ("w.pt", lambda p: torch.save(STATE, p), "of an unknown kind"),
    "folder": ("w", lambda p: p.mkdir(), "no stepsight run and no diffusers pipeline"),
    "missing": ("w.pt", lambda p: None, "no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_checkpoint_is_refused_and_nothing_is_written(tmp_path, capsys, case):
    name, make, message = REFUSED[case]
    make(tmp_path / name)
    out = tmp_path / "out"
    assert main(["convert", "import", str(tmp_path / name), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(tmp_path / name) in error
    assert "Traceback" not in error and error.count("\n") == 1
    assert not out.exists() and not (tmp_path / "ran").exists()


def test_the_harmful_file_would_have_done_harm(tmp_path):
    harmful(True)(tmp_path / "w.pt")
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="is a folder. Name the .pt"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("kind", ["pt", "old", "safetensors"])
def test_tensors_are_read_from_every_kind_of_file(tmp_path, kind):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "pt")
    found = read_tensors(path)
    assert found.tensors.keys() == STATE.keys() and not found.notes
    assert all(torch.equal(found.tensors[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("model", "ema"), "ema"),
        (("state_dict", "model"), "model"),
        (("state_dict",), "state_dict"),
    ],
)
def test_averaged_weights_come_before_others(tmp_path, keys, taken):
    full = {key: STATE if key == taken else {"b": torch.ones(1)} for key in keys}
    full |= {"opt": {"state": {0: {"step": torch.ones(())}}}, "args": argparse.Namespace(lr=1e-4)}
    torch.save(full, tmp_path / "w.pt")
    found = read_tensors(tmp_path / "w.pt")
    assert found.tensors.keys() == STATE.keys()
    assert len(found.notes) == 1 and f"'{taken}'" in found.notes[0]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_beside_weights_are_read(tmp_path, dtype, core):
    """As NumPy writes them before 2.0, and since."""
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    torch.save(
        {"state_dict": STATE, "array": array},
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=False,
    )
    written = (tmp_path / "w.pt").read_bytes()
    mine = f"c{np.empty(0).__reduce__()[0].__module__}\n".encode()
    assert mine in written
    (tmp_path / "w.pt").write_bytes(written.replace(mine, f"c{core}.multiarray\n".encode()))
    found = read_tensors(tmp_path / "w.pt")
    assert found.tensors.keys() == STATE.keys()
    assert (found.beside["array"] == array).all() and found.beside["array"].dtype == dtype


def test_only_a_prefix_that_all_names_have_is_dropped(tmp_path):
    torch.save({f"module.{name}": value for name, value in STATE.items()}, tmp_path / "w.pt")
    found = read_tensors(tmp_path / "w.pt")
    assert found.tensors.keys() == STATE.keys() and "module." in found.notes[0]
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    found = read_tensors(tmp_path / "w.pt")
    assert found.tensors.keys() == {"module.a", "b"} and not found.notes


@pytest.mark.parametrize(
    ("names", "channels", "kind"),
    [
        (("x_embedder.proj.weight", "blocks.0.mlp.fc1.weight"), 4, "dit"),
        (("x_embedder.proj.weight", "blocks.0.moe.gate.weight"), 12, "single-task"),
        (("x_embedder.proj.conv_in_1.weight", "blocks.0.moe.gate.weight"), 12, "generalist"),
    ],
)
def test_files_are_recognised_by_their_names(tmp_path, names, channels, kind):
    torch.save(dict.fromkeys(names, torch.ones(1, channels)), tmp_path / "w.pt")
    assert recognise(tmp_path / "w.pt")[0] == kind


@pytest.mark.parametrize(
    ("names", "seems"),
    [
        (("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"), "a diffusers U-Net"),
        (("encoder.conv_in.weight", "decoder.conv_in.weight"), "a VAE"),
        (("layers.0.weight",), "of an unknown kind"),
    ],
)
def test_other_weights_are_named(tmp_path, names, seems):
    torch.save(dict.fromkeys(names, torch.ones(1)), tmp_path / "w.pt")
    with pytest.raises(UserError) as caught:
        recognise(tmp_path / "w.pt")
    assert seems in str(caught.value) and names[0] in str(caught.value)
    assert "Supported are" in str(caught.value)
