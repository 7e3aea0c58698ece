"""What goes wrong on the command line: one line that says what, where and what next, exit status 2,
and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepsight.checkpoint import BACKBONE
from stepsight.cli import evaluate, main
from stepsight.cli.entry import guarded
from stepsight.cli.flags import config_files
from stepsight.distributed import launching
from stepsight.errors import UserError


def predict(run: Path, *arguments: object) -> tuple[object, ...]:
    return ("predict", *arguments, "--checkpoint", run, "--out", run.parent / "out")


def score(run: Path, *arguments: object) -> tuple[object, ...]:
    return ("--checkpoint", run, "--processes", 1, *arguments)


# ---------------------------------------------------------------------------- the guard


def test_a_user_error_is_one_line_and_status_2(capsys):
    def body(arguments: list[str]) -> int:
        raise UserError(f"no such {arguments[0]}.")

    assert guarded(body, ["thing"]) == 2
    assert capsys.readouterr().err == "error: no such thing.\n"


def test_debug_shows_where_it_was_raised():
    def body(arguments: list[str]) -> int:
        assert arguments == ["thing"]
        raise UserError("no.")

    with pytest.raises(UserError):
        guarded(body, ["thing", "--debug"])


def test_a_process_that_is_not_the_first_says_who_it_is(capsys, monkeypatch):
    def body(arguments: list[str]) -> int:
        raise UserError("no.")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(launching, "SPEECH", 0.0)
    assert guarded(body, []) == 2
    assert re.fullmatch(r"error: rank 1 of 1 \(.+\): no\.\n", capsys.readouterr().err)


def test_bugs_keep_their_traceback_and_interrupts_their_status():
    def broken(arguments: list[str]) -> int:
        raise ZeroDivisionError

    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError):
        guarded(broken, [])
    assert guarded(interrupted, []) == 130


def test_config_files_are_found_in_both_spellings():
    assert config_files(["--config", "a", "--x", "1", "--config=b=c", "--config"]) == ["a", "b=c"]


# ---------------------------------------------------------------------------- checkpoints


def damage_nothing_there(run: Path) -> Path:
    return run / "nowhere"


def damage_unfinished(run: Path) -> Path:
    (run / "checkpoints" / "step-000001" / "COMPLETE").unlink()
    return run / "checkpoints" / "step-000001"


def damage_flipped(run: Path) -> Path:
    file = run / "checkpoints" / "step-000001" / BACKBONE
    data = bytearray(file.read_bytes())
    data[-7] ^= 0x10
    file.write_bytes(data)
    return run


def damage_truncated(run: Path) -> Path:
    file = run / "checkpoints" / "step-000001" / BACKBONE
    file.write_bytes(file.read_bytes()[:-100])
    return run


def damage_emptied(run: Path) -> Path:
    (run / "checkpoints" / "step-000001").rename(run / "elsewhere")
    return run


DAMAGES = {
    damage_nothing_there: "nowhere not found",
    damage_unfinished: "no COMPLETE marker",
    damage_flipped: "does not match its sha256",
    damage_truncated: "truncated",
    damage_emptied: "no complete checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("program", ["predict", "evaluate"])
def test_a_checkpoint_that_cannot_be_used_is_refused(program, damage, run, picture, refused):
    path, image = damage(run), picture()
    if program == "predict":
        said = refused(main.main, *predict(path, image))
    else:
        said = refused(evaluate.main, *score(path))
    assert DAMAGES[damage] in said and str(run) in said


# ---------------------------------------------------------------------------- predict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "dept"], "--task dept: the checkpoint has depth, flow, amodal; asked for dept"),
        (["--task", "dept"], "Did you mean 'depth'"),
        (["--task", "semantic"], "asked for semantic"),
        (["--task", "flow"], "--second FILE"),
        (["--task", "amodal"], "--mask FILE"),
        (
            ["--sampler", "ddimm"],
            "--sampler ddimm: There is no sampler 'ddimm'. Did you mean 'ddim'",
        ),
        (
            ["--sampler", "heun", "--nfe", "4"],
            "--nfe 4: heun cannot spend exactly 4 model calls. Choose 3 or 5",
        ),
        (["--sampler", "heun"], "nfe 2, the default of {run}: heun cannot spend exactly 2"),
        (["--nfe", "0"], "--nfe 0: must be at least 1"),
        (
            ["--temperature", "0", "--members", "4"],
            "--members 4 --temperature 0.0: 4 members that start from zeros (temperature 0) are "
            "all the same. Ask for one member, or give a temperature",
        ),
        (["--views", "mirrored"], "Did you mean 'mirror'"),
        (["--members", "0"], "--members 0: must be at least 1"),
        (["--task", "flow", "--second", "none.png"], "none.png: no such picture"),
        (["--device", "tpu"], "device tpu: not to be had here"),
        (["--range", "3,1"], "--range 3,1: give two rising numbers"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_refused(arguments, message, run, picture, refused):
    message = message.format(run=run)
    assert message in refused(main.main, *predict(run, picture(), *arguments))


def test_pictures_that_cannot_be_read_are_refused(run, picture, refused):
    broken = picture("broken.png")
    broken.write_bytes(broken.read_bytes()[:-20])
    assert "broken.png: damaged" in refused(main.main, *predict(run, broken))
    broken.write_text("not a picture")
    assert "broken.png" in refused(main.main, *predict(run, broken))
    assert "gone.png: no such picture" in refused(main.main, *predict(run, "gone.png"))
    address = "https://example.org/a.png"
    assert f"{address}: an address" in refused(main.main, *predict(run, address))


def test_pictures_whose_results_would_meet_are_refused(run, picture, refused):
    one, other = picture("a.png"), picture("a.ppm")
    assert "overwrite each other" in refused(main.main, *predict(run, one, other))
    both = (one, picture("c.png"))
    for flag in ("--second", "--mask"):
        said = refused(main.main, *predict(run, *both, flag, one))
        assert "one file belongs to one picture" in said


def test_a_second_image_of_another_size_is_refused(run, picture, refused):
    other = picture("other.png", 19, 31)
    said = refused(main.main, *predict(run, picture(), "--task", "flow", "--second", other))
    assert "(19, 30)" in said and "(19, 31)" in said


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_results_are_never_written_over_a_file(below, run, picture, refused):
    image = picture()
    arguments = [*predict(run, image), "--out", f"{image}{below}"]
    assert "a.png is a file" in refused(main.main, *arguments)
    assert "a.png is a file" in refused(evaluate.main, *score(run, "--out", f"{image}{below}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nfe", "four"], "--nfe four: expected INT"),
        (["--tusk", "depth"], "unknown: --tusk, depth"),
        (["--taks", "depth"], "unknown: --taks, depth. Did you mean --task"),
        (["--checkpoint"], "Missing value for argument '--checkpoint'"),
    ],
)
def test_a_wrong_flag_exits_with_status_2(arguments, message, run, refused):
    error = refused(main.main, *predict(run, "a.png", *arguments))
    assert message in error and "See stepsight predict --help." in error


def test_what_is_missing_is_named(refused):
    assert "missing: --checkpoint STR run folder" in refused(main.main, "film")
    assert "name the pictures" in refused(main.main, "predict", "--checkpoint", "run")


# ---------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "dept"], "--task dept: the checkpoint has"),
        (["--nfe", "many"], "--nfe many: give a positive number"),
        (["--nfe", "0"], "--nfe 0: give a positive number"),
        (["--nfe", "1,,2", "--sweep"], "--nfe 1,,2"),
        (["--members", "-1"], "--members -1"),
        (
            ["--temperature", "0", "--members", "4"],
            "--members 4 --temperature 0.0: 4 members that start from zeros (temperature 0) are "
            "all the same. Ask for one member, or give a temperature",
        ),
        (["--temperature", "warm"], "--temperature warm"),
        (["--temperature", "-1"], "--temperature -1"),
        (["--temperature", "0,1"], "add --sweep"),
        (["--views", "none,mirror"], "add --sweep"),
        (["--views", "mirrored"], "Did you mean 'mirror'"),
        (["--views", "mirror", "--sampler", "heun", "--nfe", "3"], "Sample with ddim"),
        (["--members", "²"], "--members ²"),
        (["--nfe", "1,2"], "add --sweep"),
        (["--members", "1,2"], "add --sweep"),
        (
            ["--sampler", "ddimm"],
            "--sampler ddimm: There is no sampler 'ddimm'. Did you mean 'ddim'",
        ),
        (["--sampler", "heun", "--nfe", "4"], "--nfe 4: heun cannot spend exactly 4 model calls."),
        (["--sampler", "heun", "--sweep"], "evaluation.sweep_nfe of {run} has 2: heun cannot"),
        (["--data.name", "hypersin"], "Did you mean 'hypersim'"),
        (["--data.name", "hypersim", "--data.root", "/nowhere"], "/nowhere"),
        (["--data.name", "flyingchairs"], "no folder is given"),
        (["--data.root", "/data"], "--data.option need --data.name"),
        (["--data.name", "scenes", "--data.root", "/data"], "scenes has no option 'root'"),
        (["--data.name", "scenes", "--data.split", "val"], "--data.split val"),
        (["--data.images", "-1"], "--data.images -1"),
        (["--batch", "-1"], "--batch -1"),
        (["--protocol", "depth-afine"], "Did you mean 'depth-affine'"),
        (["--protocol", "da2k"], "needs order; scenes has none"),
        (["--predictions", "."], "give either --checkpoint RUN or --predictions DIR"),
        (["--pattern", "{key}.npy"], "--pattern needs --predictions"),
        (["--sweep", "--save-predictions"], "keeps no predictions"),
    ],
)
def test_an_evaluation_that_cannot_be_made_is_refused(arguments, message, run, refused):
    assert message.format(run=run) in refused(evaluate.main, *score(run, *arguments))


def test_a_wrong_flag_of_evaluate_exits_with_status_2(refused):
    error = refused(evaluate.main, "--checkpoint", "x", "--sweeep")
    assert "unknown: --sweeep. Did you mean --sweep" in error


# ---------------------------------------------------------------------------- train
