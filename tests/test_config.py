"""Settings from files and flags: what wins, what is refused and how it says so, and that a run's
configuration written down reads as the same run."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepsight import config as configuration
from stepsight.cli.flags import configured
from stepsight.config import RunConfig, from_dict
from stepsight.data.config import ScenesSettings
from stepsight.data.readers.config import FlyingChairsSettings, HypersimSettings
from stepsight.errors import UserError
from stepsight.tasks.config import DepthSettings, NormalsSettings, SemanticSettings

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Args:
    """Flags of a program besides the settings."""

    config: tuple[str, ...] = ()
    loud: bool = False


@pytest.fixture
def written(tmp_path):
    """Write a file and return its name."""

    def write(text: str, name: str = "run.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def resolved(*files: str, flags: tuple[str, ...] = ()) -> RunConfig:
    named = [word for file in files for word in ("--config", file)]
    return configured(Args, [*named, *flags], "train.py").config


# ---------------------------------------------------------------------------- round trip


def test_every_setting_survives_being_written_and_read(written):
    unusual = from_dict(
        {
            "model": {"name": "DiT-B/4", "input": "per_task", "gate_init": 0, "qk_norm": True},
            "tasks": {
                "normals": {"weight": 2},
                "depth": {"space": "inverse", "range": "metric", "low": 1e-3, "high": 1e5},
                "semantic": {"classes": 9, "encoding": "bits"},
            },
            "data": {
                "root": "/data",
                "hypersim": {"root": "h", "size": [96, 128]},
                "scenes": {"objects": 0, "camera_only": False, "cache": "null", "thin": 0.1},
            },
            "diffusion": {"schedule": "cosine", "density_mean": -0.4, "sampler": "dpmpp_2m"},
            "training": {"betas": [0.5, 0.75], "lr": 1e-5, "flip": False, "weight_decay": 1e-9},
            "evaluation": {"sweep_nfe": [3], "sweep_members": [1, 16, 256]},
        }
    )
    again = resolved(written(unusual.to_yaml()))
    assert again == unusual
    assert again.to_yaml() == unusual.to_yaml()
    assert again.fingerprint() == unusual.fingerprint()
    assert list(again.tasks) == ["normals", "depth", "semantic"]  # the order of the label rows


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "yes",
        "off",
        "012",
        "1e3",
        "1_000",
        "a: b",
        "# no",
        "[1]",
        "é ✓",
        "a\nb",
        "~",
    ],
)
def test_any_text_survives_being_written_and_read(text):
    config = replace(
        from_dict({}), data_root=text, data={"hypersim": HypersimSettings(root=text, split=text)}
    )
    assert from_dict(yaml.safe_load(config.to_yaml())) == config


def test_tuples_are_tuples_whatever_they_were(written):
    file = written("data: {scenes: {size: [16, 24]}}\nevaluation: {sweep_nfe: [2, 3]}")
    config = resolved(file)
    assert config.data["scenes"].size == (16, 24)
    assert config.evaluation.sweep_nfe == (2, 3)
    assert isinstance(hash(config.data["scenes"]), int)
    flagged = resolved(
        file, flags=("--data.scenes.size", "32", "40", "--training.betas=0.8", "0.9")
    )
    assert flagged.data["scenes"].size == (32, 40)
    assert flagged.training.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"gate_init": 0.5}},
        {"training": {"seed": 1}},
        {"tasks": {"depth": {}}},
        {"data": {"scenes": {"seed": 1}}},
        {"data": {"root": "x"}},
        {"evaluation": {"sweep_nfe": [1, 2, 4]}},
    ],
)
def test_the_fingerprint_changes_with_any_setting(changes):
    assert from_dict(changes).fingerprint() != from_dict({}).fingerprint()


# ---------------------------------------------------------------------------- precedence


def test_defaults_then_files_then_flags(written):
    first = written("training: {lr: 1, muon_lr: 1, clip: 1}\nmodel: {gate_init: 1}", "a.yaml")
    second = written("training: {muon_lr: 2, clip: 2}", "b.yaml")
    training = resolved(first, second, flags=("--training.clip", "3")).training
    assert (training.lr, training.muon_lr, training.clip) == (1, 2, 3)
    assert training.ema == from_dict({}).training.ema
    assert resolved(first, second).model.gate_init == 1


def test_without_files_the_defaults_are_the_generalist_on_procedural_worlds():
    config = resolved()
    assert list(config.tasks) == ["depth", "flow", "amodal", "semantic"]
    assert config.data == {"scenes": ScenesSettings()}
    assert config == from_dict({})


def test_a_file_replaces_a_table_as_a_whole_and_a_flag_changes_one_entry(written):
    file = written("tasks: {depth: {space: linear}}\ndata: {flyingchairs: {root: f}}")
    assert resolved(file).tasks == {"depth": DepthSettings(space="linear")}
    assert resolved(file).data == {"flyingchairs": FlyingChairsSettings(root="f")}
    changed = resolved(file, flags=("--tasks.depth.weight", "2", "--tasks.normals.weight", "3"))
    assert changed.tasks == {
        "depth": DepthSettings(weight=2, space="linear"),
        "normals": NormalsSettings(weight=3),
    }
    more = resolved(file, flags=("--data.hypersim.root=h", "--data.root", "/d"))
    assert list(more.data) == ["flyingchairs", "hypersim"] and more.data_root == "/d"


def test_a_later_file_replaces_the_tables_of_an_earlier_one(written):
    first = written("tasks: {depth: {weight: 3}}\ndata: {hypersim: {root: h}}", "a.yaml")
    second = written("tasks: {depth: {low: 2}, semantic: {classes: 3}}", "b.yaml")
    config = resolved(first, second)
    assert config.tasks == {"depth": DepthSettings(low=2), "semantic": SemanticSettings(classes=3)}
    assert list(config.data) == ["hypersim"]
    assert list(resolved(second, first).tasks) == ["depth"]


def test_a_table_with_only_a_root_keeps_the_default_sources(written):
    config = resolved(written("data: {root: /d}"))
    assert config.data == {"scenes": ScenesSettings()} and config.data_root == "/d"


def test_a_list_on_the_command_line_replaces_the_list(written):
    file = written("evaluation: {sweep_nfe: [1, 2]}")
    config = resolved(file, flags=("--evaluation.sweep-nfe", "4", "8", "16"))
    assert config.evaluation.sweep_nfe == (4, 8, 16)


def test_a_flag_may_mend_what_a_file_leaves_unfinished(written):
    file = written("training: {batch: 7}")
    flags = [f"--training.{key}" for key in ("images", "log-every", "validate-every")]
    flags += ["--training.first-validation", "--training.checkpoint-every"]
    mended = resolved(file, flags=tuple(part for flag in flags for part in (flag, "70")))
    assert mended.training.images == 70
    with pytest.raises(UserError, match="not a multiple of training.batch=7"):
        resolved(file)


def test_a_program_has_flags_of_its_own_beside_the_settings(written):
    files = [written("", "a.yaml"), written("training: {seed: 3}", "b.yaml")]
    flags = ["--config", files[0], "--config", files[1], "--loud"]
    found = configured(Args, flags, "train.py")
    assert found.args == Args(config=tuple(files), loud=True)
    assert found.config == from_dict({"training": {"seed": 3}})


# ---------------------------------------------------------------------------- the files we ship


def shipped() -> list[Path]:
    every = [one for one in CONFIGS.glob("**/*.yaml") if one.parent.name != "accelerate"]
    return sorted(one for one in every if not one.name.startswith(("ladder-", "study")))  # of many


def test_there_are_files_to_check():
    assert {"smoke.yaml", "real-samples.yaml"} <= {path.name for path in shipped()}


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_every_shipped_file_reads_and_reads_again(path):
    config = resolved(str(path))
    assert from_dict(yaml.safe_load(config.to_yaml())) == config


def by_size() -> list[Any]:
    """The shipped files; those of large networks like that of paper/depth.yaml are slow."""
    large = {"amodal", "flow", "generalist", "generalist-8e2a", "pretrain"}
    return [
        pytest.param(
            path, marks=[pytest.mark.slow] * (path.parent.name == "paper" and path.stem in large)
        )
        for path in shipped()
    ]


@pytest.mark.parametrize("path", by_size(), ids=lambda path: path.stem)
def test_every_shipped_file_describes_itself(path):
    from stepsight.training.planning.dry_run import describe, lines

    config = resolved(str(path))
    found = describe(config)
    assert found["params_total"] == sum(found["params_by_group"].values()) > 0
    assert found["flops_train"] == found["flops_train_per_image"] * config.training.images > 0
    assert found["flops_train_per_image"] >= 3 * found["flops_forward"]
    assert found["memory_bytes"] > 16 * found["params_total"]
    assert f"{found['params_total']:,}" in "\n".join(lines(found))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_every_shipped_file_opens_with_the_command_that_runs_it(path):
    first = path.read_text().splitlines()[0]
    named = path.relative_to(CONFIGS.parent)
    study = re.match(r"# uv run stepsight study (\S+)", first)
    if study:  # a layer over other files, which makes no run by itself
        assert str(named) in (CONFIGS.parent / study[1]).read_text()
    else:
        assert first.startswith(f"# uv run train.py --config {named}")


# ---------------------------------------------------------------------------- lightness

PROBE = """
import sys
from importlib import import_module
try:
    import_module("stepsight.cli." + sys.argv[1]).main(sys.argv[2:])
finally:
    heavy = {"torch", "numpy", "scipy", "timm", "accelerate", "diffusers", "matplotlib", "wandb"}
    print("HEAVY", sorted(heavy & sys.modules.keys()))
"""


def children_seconds() -> float:
    """Processor time of finished child processes, which a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "arguments",
    [("train", "--help"), ("train", "--print-config"), ("evaluate", "--help"), ("main", "--help")],
    ids=" ".join,
)
def test_help_and_parsing_import_nothing_heavy(arguments):
    began = children_seconds()
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "HEAVY []"
    assert children_seconds() - began < 3  # about 0.9; torch alone takes 4


def test_the_tables_hold_the_names_of_their_rows():
    for rows in configuration.TABLES.values():
        assert all(name == kind.name and ":" in kind.implementation for name, kind in rows.items())
