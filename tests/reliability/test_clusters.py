"""What starts runs on clusters, as far as it can be tried without one."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from stepsight.cli import train
from stepsight.cli.entry import parse
from stepsight.cli.scaling import ladder

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
SCRIPTS = sorted((ROOT / "scripts" / "slurm").glob("*.sbatch"))
SRUN = """#!/usr/bin/env bash
# A stand-in that starts one task, and says what it was given.
while [[ "$1" == --* ]]; do shift; done
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_NNODES=1
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo localhost; else echo "$*" >> requeued; fi
"""
TASK = """#!/usr/bin/env bash
echo "$*" > given
env | grep -E '^(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_|TORCH_)' | sort > environment
exit "${STATUS:-0}"
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_it_and_is_left_nothing_that_training_does_itself(path):
    found = load_config_from_file(str(path))
    processes = {"one-gpu": 1, "one-node-8": 8, "two-nodes": 16}[path.stem]
    assert found.num_processes == processes and not found.use_cpu
    assert not found.fsdp_config and not found.deepspeed_config
    assert found.mixed_precision == "no"
    assert path.read_text().startswith(f"# uv run accelerate launch --config_file {path_of(path)} ")
    known = {"compute_environment", *vars(found)}
    assert yaml.safe_load(path.read_text()).keys() <= known


def path_of(path: Path) -> Path:
    return path.relative_to(ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("one-gpu", 1), ("one-node-8", 2)])
def test_accelerate_launches_it_here(tmp_path, name, count):
    """On a CPU, with processes for which there are cores."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(count)]
    command += [
        "--config_file",
        str(ROOT / f"configs/accelerate/{name}.yaml"),
        str(ROOT / "train.py"),
        "--training.processes",
        str(count),
    ]
    small = ["--model.name", "split-8", "--training.images", "32", "--training.evaluate", "False"]
    small += ["--data.scenes.size", "32", "32", "--data.scenes.count", "32", "--run-dir", "run"]
    small += ["--data.scenes.eval_count", "8", "--training.log_every", "16"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, *small],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    log = (tmp_path / "run/train.log").read_text()
    assert re.search(rf"\b{count} processes", log)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_one(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    asked = re.findall(r"^#SBATCH --(\S+)", path.read_text(), re.M)
    assert {"requeue", "open-mode=append"} <= set(asked)
    assert any(re.fullmatch(r"signal=(USR1|TERM)@\d+", one) for one in asked)


def test_documented_jobs_have_arguments_that_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    pages = [ROOT / "docs" / "clusters.md", *SCRIPTS]
    text = "\n".join(page.read_text() for page in pages)
    found = re.findall(r"^(?:# )?sbatch .*?(train|ladder)\.sbatch (--.*)$", text, re.M)
    assert {kind for kind, _ in found} == {"train", "ladder"} and len(found) >= 4
    for kind, words in found:
        if kind == "train":
            assert train.Args.parse(shlex.split(words), "train.py").args.run_dir
        else:
            assert parse(ladder.Args, shlex.split(words), "ladder").config


@pytest.mark.parametrize("status", [0, 1, 2, 75])
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_it_queues_again_what_was_preempted_and_saved(tmp_path, path, status):
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "task": TASK}.items():
        file = tmp_path / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IEXEC)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STEPSIGHT": str(tmp_path / "task")}
    environment |= {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "a", "STATUS": str(status)}
    environment |= {"SLURM_SUBMIT_DIR": str(tmp_path)}
    arguments = ["--config", "a b.yaml", "--run-dir", "runs/x"]
    done = subprocess.run(["bash", str(path), *arguments], env=environment, cwd=tmp_path)
    assert done.returncode == status
    queued = tmp_path / "requeued"
    assert (queued.read_text() if queued.exists() else "") == (
        "requeue 12345\n" if status == 75 else ""
    )
    resumed = "--resume auto " if path.stem == "train" else ""
    assert (tmp_path / "given").read_text().strip() == resumed + " ".join(arguments)
    found = (tmp_path / "environment").read_text()
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in found
    if path.stem == "train":
        assert {"RANK=0", "WORLD_SIZE=1", "LOCAL_RANK=0", "LOCAL_WORLD_SIZE=1"} <= set(
            found.split()
        )
        assert "MASTER_ADDR=localhost" in found and "MASTER_PORT=32345" in found


def test_the_image_is_made_of_what_is_locked():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    syncs = [line for line in lines if "uv sync" in line]
    assert syncs and all("--frozen" in line and "--no-dev" in line for line in syncs)
    assert 'ENTRYPOINT ["stepsight"]' in lines  # no shell between, which would keep signals
    copied = next(line for line in lines if line.startswith("COPY pyproject"))
    assert all((ROOT / name).is_file() for name in copied.split()[1:-1])
