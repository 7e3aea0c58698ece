"""Settings from files and flags: what wins, what is refused and how it says so, and that a run's
configuration written down reads as the same run."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stepsight import config as configuration
from stepsight.config import RunConfig, from_dict, load
from stepsight.data.config import FlyingChairsSettings, HypersimSettings, ScenesSettings
from stepsight.errors import UserError
from stepsight.tasks.config import DepthSettings, NormalsSettings, SemanticSettings

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Door:
    """A program's own flags."""

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
    return load(files, flags)[0]


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
def test_any_text_survives_being_written_and_read(text, written):
    config = replace(
        from_dict({}), data_root=text, data={"hypersim": HypersimSettings(root=text, split=text)}
    )
    assert resolved(written(config.to_yaml())) == config


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


def test_a_program_has_flags_of_its_own_beside_the_settings():
    config, door = load([], ["--config", "a", "--config", "b", "--loud"], Door)
    assert door == Door(config=("a", "b"), loud=True)
    assert config == from_dict({})


# ---------------------------------------------------------------------------- refusals in files

WRONG = {
    "modle: {}": ("'modle' unknown", "'model'"),
    "model: {nmae: x}": ("'model.nmae' unknown", "'name'"),
    "training: {log_evry: 16}": ("'training.log_evry' unknown", "'log_every'"),
    "tasks: {dpeth: {}}": ("'tasks.dpeth' unknown", "'depth'"),
    "tasks: {depth: {wieght: 1}}": ("'tasks.depth.wieght' unknown", "'weight'"),
    "data: {hypersin: {}}": ("'data.hypersin' unknown", "'hypersim'"),
    "data: {scenes: {levle: hard}}": ("'data.scenes.levle' unknown", "'level'"),
    "tasks: {no: {}}": ("'tasks.False' unknown", "depth"),
    "tasks: [depth, flow]": ("'tasks' must be a table", "depth"),
    "tasks: depth": ("'tasks' must be a table", "depth"),
    "tasks: {depth: 3}": ("'tasks.depth' must be a table", "3"),
    "model: hourglass-32": ("'model' must be a table", "hourglass-32"),
    "tasks:\n  depth:\n": ("'tasks.depth'", ""),
    "model: {gate_init: high}": ("'model.gate_init'", "high"),
    "model: {input: both}": ("'model.input'", "per_task"),
    "training: {flip: perhaps}": ("'training.flip'", "perhaps"),
    "training: {images: 1.5}": ("'training.images'", "1.5"),
    "training: {betas: [0.9]}": ("'training.betas' must be tuple[float, float]", "[0.9]"),
    "data: {scenes: {size: 32}}": ("'data.scenes.size' must be tuple[int, int]", "32"),
    "data: {scenes: {size: [a, b]}}": ("'data.scenes.size' must be tuple[int, int]", "'a'"),
    "data: {scenes: {size: [8, 8, 8]}}": ("'data.scenes.size'", "[8, 8, 8]"),
    "evaluation: {sweep_nfe: 3}": ("'evaluation.sweep_nfe' must be tuple[int, ...]", "3"),
    "model: {name: '${there.is.none}'}": ("there", ""),
    "model: {name: a, name: b}": ("not valid YAML", "duplicate"),
    "a: [": ("not valid YAML", "line"),
    "- model": ("must hold a table", "tasks"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_file_is_named_with_the_file_and_the_key(text, written):
    file = written(text)
    with pytest.raises(UserError) as error:
        resolved(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    assert all(part in message for part in WRONG[text])


def test_a_typo_in_a_table_that_a_later_file_replaces_is_still_refused(written):
    first, second = written("tasks: {dpeth: {}}", "a.yaml"), written("tasks: {depth: {}}", "b.yaml")
    with pytest.raises(UserError, match="a.yaml: 'tasks.dpeth' unknown"):
        resolved(first, second)


def test_a_missing_file_suggests_one_that_is_there(written):
    file = written("model: {}", "smoke.yaml")
    with pytest.raises(UserError, match="not found. Did you mean '.*smoke.yaml'"):
        resolved(file.replace("smoke", "smok"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"images": 100}}, "training.images=100 .* multiple .*batch=16. Use 96"),
        ({"training": {"log_every": 8}}, "training.log_every=8 .* Use 16"),
        ({"training": {"first_validation": 17}}, "training.first_validation=17 .* Use 16"),
        ({"training": {"validate_every": 250}}, "training.validate_every=250 .* Use 240"),
        ({"training": {"checkpoint_every": -16}}, "training.checkpoint_every=-16"),
        ({"training": {"images": 0}}, "training.images=0: must be at least 1"),
        ({"training": {"batch": 0}}, "training.batch=0: must be at least 1"),
        ({"training": {"accumulate": 0}}, "training.accumulate=0"),
        ({"training": {"keep": 0}}, "training.keep=0"),
        ({"evaluation": {"nfe": 0}}, "evaluation.nfe=0"),
        ({"evaluation": {"members": 0}}, "evaluation.members=0"),
        ({"evaluation": {"sweep_nfe": [1, 0]}}, "evaluation.sweep_nfe"),
        ({"evaluation": {"sweep_members": []}}, "evaluation.sweep_members"),
        ({"tasks": {"depth": {"weight": -1}}}, "tasks.depth.weight=-1"),
        ({"data": {"scenes": {"weight": float("nan")}}}, "data.scenes.weight=nan"),
        ({"tasks": {}}, "at least one entry under tasks"),
    ],
)
def test_values_that_no_run_can_have_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        from_dict(values)


def test_an_interval_of_zero_means_never_and_is_allowed():
    assert from_dict({"training": {"validate_every": 0}}).training.validate_every == 0


# ---------------------------------------------------------------------------- refusals of flags


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--training.imags", "16"], "--training.images"),
        (["--tasks.dpeth.weight", "2"], "--tasks.depth.weight"),
        (["--tasks.depth.wieght", "2"], "--tasks.depth.weight"),
        (["--data.scenes.levl", "hard"], "--data.scenes.level"),
        (["--training.images", "many"], "--training.images"),
        (["--model.input", "both"], "per_task"),
        (["--training.flip"], "--training.flip"),
        (["--training.flip", "perhaps"], "--training.flip"),
        (["--data.scenes.size", "32"], "--data.scenes.size"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_flag_exits_with_2_and_says_which_was_meant(flags, said, capsys):
    with pytest.raises(SystemExit) as exit:
        resolved(flags=tuple(flags))
    assert exit.value.code == 2
    assert said in capsys.readouterr().err


def test_a_flag_with_a_value_no_run_can_have_is_refused():
    with pytest.raises(UserError, match="training.images=100"):
        resolved(flags=("--training.images", "100"))


# ---------------------------------------------------------------------------- the files we ship


def shipped() -> list[Path]:
    return sorted(CONFIGS.glob("**/*.yaml"))


def test_there_are_files_to_check():
    assert {"smoke.yaml", "real-samples.yaml"} <= {path.name for path in shipped()}


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_every_shipped_file_reads_describes_itself_and_reads_again(path, written):
    from stepsight.training.dry_run import describe, lines

    config = resolved(str(path))
    assert resolved(written(config.to_yaml())) == config
    found = describe(config)
    assert found["params_total"] == sum(found["params_by_group"].values()) > 0
    assert found["flops_train"] == 3 * found["flops_forward"] * config.training.images > 0
    assert found["memory_bytes"] > 16 * found["params_total"]
    assert f"{found['params_total']:,}" in "\n".join(lines(found))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_every_shipped_file_opens_with_the_command_that_runs_it(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# uv run train.py --config {path.relative_to(CONFIGS.parent)}")


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
