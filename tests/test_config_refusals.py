"""What is wrong in a file or a flag is refused with its place, and with what was probably meant."""

from __future__ import annotations

import pytest

from stepsight.cli import train
from stepsight.cli.flags import configured
from stepsight.config import RunConfig, from_dict
from stepsight.errors import UserError


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
    return configured(train.Args, [*named, *flags], "train.py").config


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
    "model: split-8": ("'model' must be a table", "split-8"),
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
        (
            {"training": {"images": 100, "batch": 8}},
            "training.images=100 .* multiple .*batch=8. Use 96",
        ),
        ({"training": {"log_every": 4, "batch": 8}}, "training.log_every=4 .* Use 8"),
        ({"training": {"first_validation": 17, "batch": 8}}, "first_validation=17 .* Use 16"),
        ({"training": {"validate_every": 250, "batch": 8}}, "validate_every=250 .* Use 248"),
        ({"training": {"checkpoint_every": -16}}, "training.checkpoint_every=-16"),
        ({"training": {"images": 0}}, "training.images=0: must be at least 1"),
        ({"training": {"batch": 0}}, "training.batch=0: must be at least 1"),
        ({"training": {"micro_batch": "0"}}, "training.micro_batch=0"),
        ({"training": {"keep": 0}}, "training.keep=0"),
        ({"training": {"rows": {"deep": 1.5}}}, "training.rows.deep=1.5: a share, from 0 to 1"),
        ({"training": {"rows": {"noisy": -0.1}}}, "training.rows.noisy=-0.1: a share"),
        (
            {"training": {"rows": {"start": 0, "rollout": 0, "denoise": 0}}},
            "training.rows: start and denoise are both 0",
        ),
        (
            {"training": {"rows": {"start": 0.25, "rollout": 0.5}}},
            "training.rows.rollout=0.5: walks go on from starts, of which there are 0.25",
        ),
        ({"diffusion": {"views": "mirror"}}, "diffusion.views is .* evaluation.views"),
        ({"diffusion": {"temperature": 0.0}}, "diffusion.temperature .* evaluation.temperature"),
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
    assert train.main(["--print-config", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert said in error and "See train.py --help." in error


def test_a_flag_with_a_value_no_run_can_have_is_refused():
    with pytest.raises(UserError, match="training.images=100"):
        resolved(flags=("--training.images", "100"))
