"""`evaluate.py --sweep`, and the same flags with one value each: what they do to the numbers."""

from __future__ import annotations

import json
import shutil

import pytest

from stepsight.cli import evaluate
from stepsight.scaling.sampling.sweeps import read_sweep


def score(*arguments: object) -> int:
    return evaluate.main([str(one) for one in [*arguments, "--processes", 1]])


def test_a_sweep_is_the_product_of_its_flags(run, tmp_path, capsys):
    flags = ["--checkpoint", run, "--sweep", "--task", "depth", "--data.images", 2]
    flags += ["--nfe", "1,2", "--members", "1,2", "--sampler", "ddim,heun", "--size", "16,24"]
    flags += ["--spacing", "linspace", "--schedule", "cosine", "--temperature", 1]
    assert score(*flags, "--merge", "median,mean", "--out", tmp_path / "o") == 0
    cells = [c for c in read_sweep(tmp_path / "o/sweep.csv") if c.metric == "abs_rel"]
    assert len(cells) == (2 + 1) * 2 * 2 * 2  # heun has no walk of 2 calls
    assert len({(cell.family, cell.setting) for cell in cells}) == len(cells)
    assert {(cell.spacing, cell.schedule) for cell in cells} == {("linspace", "cosine")}
    assert {cell.checkpoint for cell in cells} == {str(run)}
    assert {cell.size for cell in cells} == {"8x16", "16x24"} and {c.images for c in cells} == {2}
    assert "2 NFE is left out of heun" in capsys.readouterr().out


def test_every_flag_reaches_the_sampler(run, tmp_path):
    """Each flag changes the score of an evaluation, which says how it was sampled."""
    flags = ["--checkpoint", run, "--task", "depth", "--nfe", 3, "--members", 3]
    ways = {"sampler": "heun", "spacing": "karras", "schedule": "cosine"}
    ways |= {"size": "16", "merge": "mean", "eta": "1.0"}
    found = {}
    for name, value in {"": "", **ways}.items():
        out = tmp_path / (name or "usual")
        assert score(*flags, *([f"--{name}", value] if name else []), "--out", out) == 0
        (found[name],) = json.loads((out / "results.json").read_text())
    assert len({one["metrics"]["abs_rel"] for one in found.values()}) == 1 + len(ways)
    told = {name: one["options"].get(name, one["sampler"]) for name, one in found.items() if name}
    assert {name: str(value) for name, value in told.items()} == ways
    assert not found[""]["options"].keys() & ways.keys()
    line, *_ = (tmp_path / "spacing/records.jsonl").read_text().splitlines()
    assert json.loads(line)["sampler"] == "ddim karras"


def test_a_sampler_that_cannot_spend_one_call_is_scored_and_drawn(run, tmp_path):
    flags = ["--checkpoint", run, "--task", "depth", "--data.images", 1, "--members", 2]
    assert score(*flags, "--sampler", "midpoint", "--nfe", 2, "--out", tmp_path) == 0
    assert list((tmp_path / "panels").glob("depth-*.png"))


def test_named_times_set_the_calls(run, tmp_path):
    flags = ["--checkpoint", run, "--task", "depth", "--data.images", 1]
    assert score(*flags, "--times", "1.0,0.6,0.2", "--out", tmp_path) == 0
    (found,) = json.loads((tmp_path / "results.json").read_text())
    assert found["nfe"] == 3 and found["options"]["times"] == [1.0, 0.6, 0.2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sweep", "--eta", "1"], "--times, --eta and --guidance are of one setting"),
        (["--sweep", "--guidance", "2"], "--times, --eta and --guidance are of one setting"),
        (["--times", "1.0,few"], "--times 1.0,few: give falling times"),
        (["--times", "1.0,0.5", "--nfe", "3"], "Ask for 2"),
        (["--sampler", "ddim,heun"], "several values of --sampler are a sweep"),
        (["--merge", "mean,median"], "several values of --merge are a sweep"),
        (["--size", "24,48"], "several values of --size are a sweep"),
        (["--size", "large"], "--size large: give a positive number"),
        (["--strategies"], "--strategies needs --sweep"),
        (["--spacing", "karas"], "Did you mean 'karras'"),
        (["--sweep", "--schedule", "cosin"], "Did you mean 'cosine'"),
        (["--sweep", "--merge", "medain"], "Did you mean 'median'"),
        (["--sweep", "--sampler", "heun", "--nfe", "2,3"], "cannot spend exactly 2"),
        (["--checkpoint", "."], "several values of --checkpoint are a sweep"),
        (["--checkpoint", ".", "--sweep"], "pass --out DIR"),
        (["--checkpoint", ".", "--sweep", "--strategies", "--out", "o"], "of one checkpoint"),
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused(arguments, said, run, capsys):
    assert score("--checkpoint", run, *arguments) == 2
    assert said in capsys.readouterr().err


def test_weights_are_named_once(run, tmp_path, capsys):
    again = shutil.copytree(run, tmp_path / "again")
    flags = ["--checkpoint", run, "--checkpoint", again, "--sweep", "--out", tmp_path / "o"]
    assert score(*flags) == 2
    assert f"{again} holds the weights of {run}" in capsys.readouterr().err
