"""Runs, configurations and commands that are refused: one line, exit status 2, nothing written."""

import re
from pathlib import Path

import pytest

from stepsight.cli import main, train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "none.yaml"], "none.yaml not found"),
        (["--training.images", "100"], "training.images=100 is not a multiple"),
        (["--dry-run", "--data.scenes.size", "60", "64"], "H=60 .* Use 56 or 64"),
        (["--dry-run", "--model.name", "spilt-32"], "Did you mean 'split-32'"),
        (["--dry-run", "--model.qk-norm", "True"], "model.qk_norm is for DiT"),
        (["--dry-run", "--model.name", "DiT-Ti/8", "--data.scenes.size", "64", "4"], "W=4"),
    ],
)
def test_a_run_that_cannot_be_is_refused(arguments, message, refused):
    assert re.search(message, refused(train.main, *arguments))


def test_an_existing_run_is_only_touched_when_told_to(run, refused, tmp_path):
    def begin(folder: Path, *more: str) -> str:
        return refused(train.main, "--training.processes", 1, "--run-dir", folder, *more)

    assert "--resume auto" in begin(run) and "--overwrite" in begin(run)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    assert "not a run folder" in begin(other, "--overwrite")
    assert (other / "chapter.tex").read_text() == "years of work"
    assert "is a file" in begin(other / "chapter.tex")


def test_a_flag_of_no_room_exits_with_status_2(refused):
    assert "Did you mean --run-dir" in refused(train.main, "--run-dri", "x")


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_refused_value_names_its_setting_and_who_gave_it(flags, refused, tmp_path):
    """The file where one did, else the flag, else that it is the default."""
    file = tmp_path / "mine.yaml"
    file.write_text("evaluation: {sweep_nfe: [1, 2], nfe: 3}")
    heun = ["--diffusion.sampler", "heun", "--training.processes", 1, "--evaluation.members", 1]
    if not flags:
        error = refused(train.main, "--config", file, *heun)
        assert "evaluation.sweep_nfe = 2" in error and "heun cannot spend exactly 2" in error
        assert f"evaluation.sweep_nfe: {file}" in error
        assert "diffusion.sampler: --diffusion.sampler" in error
        assert "(evaluation.nfe: default; diffusion" in refused(train.main, *heun)
    error = refused(train.main, "--config", file, *flags, "--evaluation.sweep-nfe=0")
    assert "(evaluation.sweep_nfe: --evaluation.sweep-nfe=0)" in error
    file.write_text("training: {images: 100}")
    error = refused(train.main, "--config", file, *flags)
    assert f"(training.images: {file}; training.batch: default)" in error


def test_a_missing_configuration_is_answered_with_a_shipped_one(refused):
    assert "Did you mean 'configs/smoke.yaml'" in refused(
        train.main, "--config", "configs/smok.yaml"
    )
    assert "Did you mean 'smoke'" in refused(train.main, "--config", "smok")


# ---------------------------------------------------------------------------- the other commands


def test_an_unknown_command_is_refused_with_the_nearest(refused):
    assert "'predic' is unknown. Did you mean 'predict'" in refused(main.main, "predic")


def test_no_command_lists_the_commands(capsys):
    assert main.main([]) == 2 and main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(shown.count(f"  {command} ") == 2 for command in main.GROUP.commands)


def test_a_report_of_no_run_is_refused(refused):
    assert "nowhere: no such run folder" in refused(main.main, "report", "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "scens"], "Did you mean 'scenes'"),
        (["stats", "--level", "esay"], "no level 'esay'"),
        (["stats", "hypersim"], "no folder is given"),
        (["stats", "hypersim", "/nowhere"], "/nowhere"),
        (["stats", "--images", "0"], "--images 0: must be at least 1"),
        (["show", "--images", "-2"], "--images -2"),
        (["show", "--size", "0", "8"], "--size 0"),
        (["show", "--out", "grid.foo"], "name a .png file"),
    ],
)
def test_data_that_cannot_be_shown_is_refused(arguments, message, refused):
    assert message in refused(main.main, "data", *arguments)
