"""The wheel holds all that the commands read, and they run from it, with no checkout around."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from matplotlib.cbook import get_sample_data

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")


def done(*command: object, env: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    run = subprocess.run(words, env=env, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done("uv", "build", "--wheel", "--quiet", "-o", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)) for path in paths}


def test_it_holds_modules_templates_and_configs(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    package = {f"stepsight/{name}" for name in files(ROOT / "src" / "stepsight")}
    assert any(name.endswith(".j2") for name in package)
    assert names == package | {f"stepsight/configs/{name}" for name in files(ROOT / "configs")}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> tuple[dict[str, str], list[str]]:
    """The environment and the command of an installation beside the packages it needs."""
    folder = tmp_path_factory.mktemp("installed")
    done("uv", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel)
    env = os.environ | {"PYTHONPATH": str(folder)}
    code = "import stepsight; print(stepsight.__file__)"
    assert done(sys.executable, "-c", code, env=env).startswith(str(folder))
    return env, [sys.executable, str(folder / "bin" / "stepsight")]


@pytest.mark.parametrize("name", ["smoke", "configs/smoke.yaml"])
def test_shipped_configurations_are_found_in_it(name, installed, tmp_path):
    env, stepsight = installed
    printed = done(*stepsight, "train", "--config", name, "--print-config", env=env)
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    again = done(*stepsight, "train", "--config", file, "--print-config", env=env)
    assert again == printed and "name: " in printed


def test_commands_run_from_it(installed):
    env, stepsight = installed
    assert "usage: stepsight evaluate" in done(*stepsight, "evaluate", "--help", env=env)
    assert "depth-affine" in done(*stepsight, "protocols", "--task", "depth", env=env)
    assert "ends at time 0" in done(*stepsight, "steps", "--config", "smoke", "--nfe", 2, env=env)


THREE_LINES = """
from stepsight import DensePipeline
pipeline = DensePipeline.from_pretrained()
print(pipeline("photo.jpg", task="depth").values.shape, pipeline.source.path)
"""


@pytest.mark.slow
def test_three_lines_answer_a_photograph(installed, tmp_path, monkeypatch):
    """With the checkpoint that the wheel brings along, and nothing of the checkout."""
    env, stepsight = installed
    shutil.copy(get_sample_data("grace_hopper.jpg", asfileobj=False), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    said = done(sys.executable, "-c", THREE_LINES, env=env)
    weights = Path(env["PYTHONPATH"], "stepsight", "weights")
    assert said == f"torch.Size([1, 1, 600, 512]) {weights}\n"
    done(*stepsight, "predict", "photo.jpg", env=env)
    assert Path("predictions/photo-depth.png").is_file()


@pytest.mark.slow
def test_all_of_it_runs_in_an_empty_environment(wheel, tmp_path):
    """Train in two processes, evaluate, predict, look at data, fit, and climb a ladder."""
    done("uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    python, locked = tmp_path / "venv" / "bin" / "python", tmp_path / "locked.txt"
    export = ["--frozen", "--no-emit-project", "--no-hashes", "--no-dev", "--quiet"]
    done("uv", "export", *export, "--project", ROOT, "-o", locked)
    done("uv", "pip", "install", "--quiet", "--python", python, "-c", locked, wheel)
    stepsight = tmp_path / "venv" / "bin" / "stepsight"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    small = ["--training.images", 32, "--training.batch", 8, "--evaluation.sweep", "False"]
    for key in ("log-every", "validate-every", "first-validation", "checkpoint-every"):
        small += [f"--training.{key}", 16]
    small += ["--data.scenes.size", 16, 24, "--data.scenes.eval-count", 4, "--run-dir", "runs/r"]
    small += ["--training.processes", 2, "--evaluation.tuning-images", 0]
    done(stepsight, "train", "--config", "smoke", *small, env=env)
    assert Path("runs/r/report.html").is_file()
    scored = ["--nfe", 1, "--members", 1, "--data.images", 2, "--processes", 2]
    assert "depth" in done(stepsight, "evaluate", "--checkpoint", "runs/r", *scored, env=env)
    assert "3 samples" in done(stepsight, "data", "check", "--size", 16, 16, "--images", 3, env=env)
    done(stepsight, "scaling", "fit", "runs/r", "--json", "--bootstrap", 0, env=env)
    assert "PFLOP" in done(
        stepsight, "scaling", "ladder", "--config", "ladder-depth", "--dry-run", env=env
    )
