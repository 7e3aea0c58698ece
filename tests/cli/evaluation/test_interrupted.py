"""Evaluations and predictions that are asked to end: what is done stays done, and they say how to
go on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stepsight import signals
from stepsight.cli import evaluate, main
from stepsight.evaluation.scoring import items
from stepsight.pipeline.dense import DensePipeline


@pytest.fixture
def asked_at(monkeypatch) -> Callable[..., None]:
    """Let a signal arrive in the n-th call of a function."""

    def arrange(where: object, name: str, number: int, sent: int) -> None:
        original, calls = getattr(where, name), iter(range(1, 10**6))

        def called(*arguments: object, **options: object) -> object:
            if next(calls) == number:
                os.kill(os.getpid(), sent)
            return original(*arguments, **options)

        monkeypatch.setattr(where, name, called)

    return arrange


def again(said: str) -> list[str]:
    """The arguments of the command that a message names."""
    (command,) = re.findall("Go on with `(.*)`", said)
    _, *words = shlex.split(command.removeprefix("uv run "))
    return words if "evaluate.py" in command else words[1:]  # stepsight predict


def untimed(path: Path) -> str:
    return re.sub(r'"(seconds(_per_image)?|time)": [^,}]*', "", path.read_text())


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (signal.SIGTERM, []),
        pytest.param(signal.SIGINT, ["--sweep", "--nfe", "1,2"], marks=pytest.mark.slow),
    ],
)
def test_an_evaluation_goes_on_where_it_was_asked_to_end(
    sent, more, run, tmp_path, capsys, asked_at, monkeypatch
):
    flags = ["--checkpoint", str(run), "--task", "depth", "--batch", "1", "--processes", "1", *more]
    assert evaluate.main([*flags, "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        asked_at(items, "_score_batch", 2, sent)
        assert evaluate.main([*flags, "--out", str(tmp_path / "o")]) == signals.PREEMPTED
        patch.undo()
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert "2 of 3 images of depth are scored" in said
    assert not (tmp_path / "o" / "results.json").exists()
    assert evaluate.main(again(said)) == 0
    names = ["results.json", "per_sample.csv", "records.jsonl"]
    for name in names + ["claims.json"] * bool(more):
        assert untimed(tmp_path / "o" / name) == untimed(tmp_path / "whole" / name), name
    assert not (tmp_path / "o" / "journal").exists()


def test_predictions_go_on_with_the_pictures_that_are_left(
    run, picture, tmp_path, capsys, asked_at
):
    pictures = [picture(f"{'x' * number}.png") for number in (1, 2, 3, 4)]
    pictures[0].write_bytes(b"no picture")
    asked_at(DensePipeline, "__call__", 2, signal.SIGTERM)
    flags = ["--checkpoint", str(run), "--nfe", "1", "--members", "1", "--on-bad", "skip"]
    flags += ["--batch", "1", "--out", str(tmp_path / "o")]
    assert main.main(["predict", *map(str, pictures), *flags]) == signals.PREEMPTED
    said = capsys.readouterr().err
    assert "2 of 4 pictures are predicted" in said
    assert again(said) == [*map(str, pictures), *flags]
    assert main.main(["predict", *again(said)]) == 1
    assert "3 of 4 answered" in (out := capsys.readouterr().out) and "(2 of them before)" in out
    found = {path.name for path in (tmp_path / "o").iterdir()}
    assert found == {"quarantine.jsonl", "manifest.json", "predicted.jsonl"} | {
        f"{p.stem}-depth.{e}" for p in pictures[1:] for e in ("npy", "png")
    }


def test_a_folder_of_pictures_one_of_them_damaged(run, picture, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "bb.png", "ccc.png"):
        picture(name).rename(folder / name)
    (folder / "bb.png").write_bytes((folder / "bb.png").read_bytes()[:100])
    (folder / "notes.txt").write_text("no picture")
    arguments = ["predict", str(folder), "--checkpoint", str(run), "--nfe", "1", "--out", "o"]
    assert main.main(arguments) == 2
    assert "bb.png" in (said := capsys.readouterr().err) and "--on-bad skip" in said
    assert main.main([*arguments, "--on-bad", "skip"]) == 1
    said = capsys.readouterr().out
    assert "1 of 3 pictures skipped: see o/quarantine.jsonl\n" in said and "bb.png: " in said
    assert "bb.png" in Path("o/quarantine.jsonl").read_text()
    assert sorted(path.stem for path in Path("o").glob("*.png")) == ["a-depth", "ccc-depth"]
    assert main.main([*arguments, "--on-bad", "skip", "--bad-cap", "0", "--seed", "1"]) == 2
    assert "--bad-cap" in capsys.readouterr().err


def test_an_empty_folder_is_refused(run, tmp_path, refused):
    (tmp_path / "pictures").mkdir()
    said = refused(main.main, "predict", tmp_path / "pictures", "--checkpoint", run)
    assert "no picture or film lies below it" in said


@pytest.mark.parametrize("value", [0.0, pytest.param(np.nan, marks=pytest.mark.slow)])
def test_one_bad_value_in_one_imported_prediction(value, run, tmp_path, capsys):
    data = ["--data.name", "scenes", "--data.images", "3", "--task", "depth", "--processes", "1"]
    data += ["--protocol", "depth-affine-log"]
    saved = ["--checkpoint", str(run), *data, "--save-predictions", "--members", "1"]
    assert evaluate.main([*saved, "--out", str(tmp_path / "d")]) == 0
    folder = tmp_path / "d" / "predictions" / "depth" / "none"
    first = sorted(folder.rglob("*.npy"))[1]
    array = np.load(first)
    array[..., 3:6, 3:6] = value
    np.save(first, array)
    flags = ["--predictions", str(folder), *data, "--out", str(tmp_path / "o")]
    capsys.readouterr()
    assert evaluate.main(flags) == 2
    assert first.stem in (said := capsys.readouterr().err) and "--on-bad skip" in said
    assert evaluate.main([*flags, "--on-bad", "skip", "--bad-cap", "0.4"]) == 0
    printed = capsys.readouterr().out
    assert "2 of" in printed and "1 bad ones skipped" in printed
    assert first.stem in (tmp_path / "o" / "quarantine.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["first", "copy"])
def test_of_two_processes_one_is_enough_to_ask(which, run, tmp_path):
    """Both end, one speaks, and the resumed evaluation is the whole one."""
    flags = ["--checkpoint", str(run), "--task", "depth", "--batch", "4", "--processes", "2"]
    flags += ["--data.name", "scenes", "--data.images", "300", "--data.option", "eval_count=300"]
    program = [sys.executable, "-m", "stepsight.cli.main", "evaluate", *flags, "--out"]
    environment = {k: v for k, v in os.environ.items() if k != "ACCELERATE_USE_CPU"}
    ended = subprocess.Popen([*program, "o"], stderr=-1, stdout=-1, text=True, env=environment)
    while len(list(Path("o/journal").glob("*.1.jsonl"))) == 0:
        assert ended.poll() is None, ended.communicate()
        time.sleep(0.05)
    copies = Path(f"/proc/{ended.pid}/task/{ended.pid}/children").read_text().split()
    os.kill(ended.pid if which == "first" else int(copies[0]), signal.SIGTERM)
    _, said = ended.communicate(timeout=60)
    assert ended.returncode == signals.PREEMPTED and said.count("preempted: ") == 1
    assert not [pid for pid in copies if Path(f"/proc/{pid}").exists()]
    for out in ("o", "whole"):
        assert subprocess.run([*program, out], env=environment, timeout=120).returncode == 0
    for name in ("results.json", "per_sample.csv", "records.jsonl"):
        assert untimed(Path("o", name)) == untimed(Path("whole", name)), name
