"""`stepsight convert`: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stepsight import checkpoint
from stepsight.cli.main import main
from stepsight.coding import build_network
from stepsight.config import RunConfig, from_dict
from stepsight.conversion.write import Converted, write
from stepsight.models.codec import described_codec
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.table import build_tasks

GENERATOR = {
    "model": {"name": "DiT-Ti/2", "learned_variance": True, "gate_init": 0.0},
    "tasks": {"image": {"classes": 10}},
    "codec": {"path": "vae"},
    "diffusion": {"schedule": "linear", "prediction": "eps", "sampling_shift": 1.0, "shift": 1.0},
}
PIXELS = {"model": {"name": "split-8"}, "tasks": {"depth": {}, "amodal": {}}}


def made(folder: Path, values: dict, size: tuple[int, int]) -> Path:
    """A run of random weights."""
    config: RunConfig = from_dict(values)
    tasks = build_tasks(config.tasks)
    torch.manual_seed(0)
    net = build_network(config, tasks, described_codec(config.codec))
    weights = {name: torch.randn(value.shape) for name, value in net.state_dict().items()}
    write(Converted(config, weights, dict.fromkeys(tasks, size)), folder)
    return folder


@pytest.fixture
def generator(tmp_path) -> Path:
    return made(tmp_path / "generator", GENERATOR, (64, 64))


@pytest.fixture
def pixels(tmp_path) -> Path:
    return made(tmp_path / "pixels", PIXELS, (16, 24))


def convert(*arguments: object) -> int:
    return main(["convert", *(str(one) for one in arguments)])


def test_a_dit_goes_out_and_comes_back(generator, tmp_path, capsys):
    assert convert("export", "--checkpoint", generator, "--format", "dit", "--out", "dit") == 0
    said = capsys.readouterr().out
    assert "load_state_dict" in said and "written to  dit" in said
    file = tmp_path / "dit" / "model.safetensors"
    assert load_file(file)["pos_embed"].shape == (1, 16, 64)
    assert convert("import", file, "--out", "back", "--name", "second") == 0
    said = capsys.readouterr().out
    for part in ("found       dit", "DiT-Ti/2, 0.", "M parameters", "image at 64x64", "codec"):
        assert part in said
    back = checkpoint.read("back")
    assert back.digest() == checkpoint.read(generator).digest()
    assert back.meta["run"] == "second" and back.meta["images_seen"] == 0
    assert back.config.tasks == checkpoint.read(generator).config.tasks


def test_a_run_is_copied_without_its_training(pixels, capsys):
    assert convert("import", pixels, "--out", "copy") == 0
    assert "found       stepsight" in capsys.readouterr().out
    old, new = (DensePipeline.from_pretrained(one) for one in (pixels, "copy"))
    assert (old.name, old.sizes, old.config) == (new.name, new.sizes, new.config)
    assert {one.name for one in Path("copy").iterdir()} == {"checkpoints", "config.yaml"}


def test_upcycling_is_called_with_what_was_asked(tmp_path):
    dense = made(tmp_path / "dense", GENERATOR | {"codec": {}}, (16, 16))
    flags = ["--experts", 4, "--top-k", 1, "--weights", "renormalised", "--shared", 1]
    assert convert("upcycle", "--checkpoint", dense, *flags, "--out", "mixed") == 0
    model = checkpoint.read("mixed").config.model
    assert model.name == "DiT-Ti/2-4E1A"
    assert (model.expert_weights, model.shared_experts) == ("renormalised", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "absent.pt", "--out", "new"), "absent.pt: no such file"),
        (("import", "PIXELS", "--out", "PIXELS"), "not empty"),
        (("import", "PIXELS", "--out", "PIXELS/config.yaml"), "is a file"),
        (("import", "PIXELS", "--vae", "v", "--out", "new"), "--vae says nothing that"),
        (("import", "PIXELS", "--size", "8", "8", "--out", "new"), "--size says nothing that"),
        (("export", "--checkpoint", "PIXELS", "--format", "dit", "--out", "new"), "split-8"),
        (("export", "--checkpoint", "absent", "--format", "dit", "--out", "new"), "not found"),
        (("upcycle", "--checkpoint", "PIXELS", "--out", "new"), "split-8"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(pixels, capsys, arguments, message):
    given = [one.replace("PIXELS", str(pixels)) for one in arguments]
    before = sorted(pixels.rglob("*"))
    assert convert(*given) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not Path("new").exists() and sorted(pixels.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import",), "missing: SRC .pt, .safetensors or a folder; --out PATH folder to make. See"),
        (("export", "--format", "onnx"), "invalid choice 'onnx' for argument '--format'"),
        (("imort", "x"), "command 'imort' is unknown. Did you mean 'import'"),
    ],
)
def test_a_call_without_what_it_needs_is_told(capsys, arguments, message):
    assert convert(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_call_without_a_verb_lists_them(capsys):
    assert convert() == 2
    assert "usage: stepsight convert <command>" in capsys.readouterr().out


def test_a_scheduler_of_another_kind_is_refused_before_anything_is_written(generator, capsys):
    convert("export", "--checkpoint", generator, "--format", "dit", "--out", "dit")
    Path("s.json").write_text('{"beta_schedule": "sigmoid"}')
    assert convert("import", "dit/model.safetensors", "--scheduler", "s.json", "--out", "new") == 2
    assert "s.json: beta_schedule is 'sigmoid'" in capsys.readouterr().err
    assert not Path("new").exists()
