"""`stepsight predict`: other ways of sampling and merging, budgets and tolerances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepsight.cli import main
from stepsight.pipeline.dense import DensePipeline
from stepsight.scaling.sampling.sweeps import Cell, write_sweep


@pytest.fixture
def predict(run, picture, capsys):
    """Predict a picture; returns the values and what was said."""

    def call(*flags: object) -> tuple[np.ndarray, str]:
        arguments = [picture(), "--checkpoint", run, "--out", run.parent / "out", *flags]
        assert main.main(["predict", *(str(one) for one in arguments)]) == 0
        return np.load(run.parent / "out" / "a-depth.npy"), capsys.readouterr().out

    return call


@pytest.fixture
def refused(run, picture, capsys):
    """What was said against the arguments; nothing is written."""

    def call(*flags: object) -> str:
        arguments = [picture(), "--checkpoint", run, "--out", run.parent / "out", *flags]
        assert main.main(["predict", *(str(one) for one in arguments)]) == 2
        assert not (run.parent / "out").exists()
        return capsys.readouterr().err

    return call


def live(run: Path, picture: Path, way: dict[str, str], **dials: object) -> np.ndarray:
    pipeline = DensePipeline.from_pretrained(run).sampling(**way)  # type: ignore[arg-type]
    found = pipeline(picture, "depth", key=picture.name, **dials)  # type: ignore[arg-type]
    return found.values[0].numpy()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampler", "ancestral"),
        ("sampler", "midpoint"),
        ("spacing", "karras"),
        ("schedule", "cosine"),
        ("merge", "mean"),
    ],
)
def test_every_way_reaches_the_model(name, value, predict, run, picture):
    found, _ = predict("--nfe", 4, "--members", 3, f"--{name}", value)
    np.testing.assert_array_equal(found, live(run, picture(), {name: value}, nfe=4, members=3))
    usual, _ = predict("--nfe", 4, "--members", 3)
    assert np.abs(found - usual).max() > 1e-5


@pytest.mark.parametrize("views", ["none", "mirror", "mirror+shift"])
def test_starts_and_views_reach_the_model(views, predict, run, picture):
    flags = ["--temperature", 0, "--views", views, "--nfe", 3, "--members", 1]
    found, _ = predict(*flags)
    dials = {"temperature": 0.0, "views": views, "nfe": 3, "members": 1}
    np.testing.assert_array_equal(found, live(run, picture(), {}, **dials))
    again, _ = predict(*flags, "--seed", 5)
    np.testing.assert_array_equal(again, found)  # from zeros there is nothing to draw
    noisy, _ = predict("--temperature", 1, *flags[2:])
    assert np.abs(noisy - found).max() > 1e-5
    if views != "none":
        plain, _ = predict(*flags[:2], "--nfe", 3, "--members", 1, "--views", "none")
        assert np.abs(plain - found).max() > 1e-5


def test_a_tolerance_stops_early(predict, run, picture):
    found, _ = predict("--nfe", 1, "--members", 5, "--tolerance", 1e9)
    np.testing.assert_allclose(found, live(run, picture(), {}, nfe=1, members=2), rtol=1e-4)


def sweep_file(path: Path, sampler: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    way = {"sampler": sampler, "spacing": "trailing", "schedule": "trained", "checkpoint": "run"}
    rows = [
        Cell(task="depth", nfe=nfe, members=members, total_calls=nfe * members, metric="abs_rel",
             gflop_per_image=nfe * members, ms_per_image=nfe * members, peak_gb=1.0, **way,
             value=value, lo=value - 0.01, hi=value + 0.01)
        for nfe, members, value in ((1, 1, 0.5), (2, 3, 0.2))
    ]  # fmt: skip
    write_sweep(path, rows)
    return path


def test_a_budget_asks_the_runs_sweep_or_the_one_named(predict, run, picture, tmp_path):
    sweep_file(run / "sweep" / "sweep.csv", "ddim")
    found, said = predict("--budget", "6nfe")
    np.testing.assert_array_equal(found, live(run, picture(), {}, nfe=2, members=3))
    assert said.startswith("6nfe: ") and "NFE 2 x 3 members: " in said and "interval" in said
    other = sweep_file(tmp_path / "other.csv", "euler")
    found, said = predict("--budget", "6nfe", "--sweep", other)
    expected = live(run, picture(), {"sampler": "euler"}, nfe=2, members=3)
    np.testing.assert_array_equal(found, expected)
    assert " euler " in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "6nfe"], "evaluate.py --checkpoint"),
        (["--budget", "6nfe", "--nfe", "2"], "leave out nfe, or the budget"),
        (["--budget", "6nfe", "--temperature", "0"], "leave out temperature, or the budget"),
        (["--budget", "6nfe", "--views", "mirror"], "leave out views, or the budget"),
        (["--budget", "6nfe", "--spacing", "karras"], "leave out spacing"),
        (["--sweep", "sweep.csv"], "only read to plan a budget"),
        (["--spacing", "karas"], "Did you mean 'karras'"),
        (["--schedule", "cosin"], "Did you mean 'cosine'"),
        (["--merge", "vote"], "depth does not merge by 'vote'"),
        (["--tolerance", "-1"], "--tolerance -1: must be at least 0"),
    ],
)
def test_what_contradicts_itself_is_refused(flags, message, refused):
    said = refused(*flags)
    assert message in said and said.count("\n") == 1


def test_guidance_needs_an_answer_without_label(refused):
    assert "task depth was trained with its label alone" in refused("--guidance", 2)
    assert "diffusion.guidance: -1" in refused("--guidance", -1)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--mask", "."), "--mask: depth reads none"),
        (("--second", "."), "--second: depth reads none"),
        (("--mask-inside", "dark"), "--mask-inside: depth reads none"),
        (("--fov", 60), "add --save ply"),
    ],
)
def test_what_nothing_would_read_is_refused(refused, monkeypatch, picture, flags, why):
    monkeypatch.chdir(picture().parent)
    assert why in refused(*flags)
